"""Hosts that a Ray cluster provides: an actor on each node starts the keeper, carries its bytes.

Ray itself is only loaded in a helper process (`driver.py`), which is the driver of a Ray job. So
neither its threads and signal handlers nor its exits (a driver aborts once its cluster's head is
gone) are in the command, and Ray ends what it started when that process ends, however it does.

`hosts.py` and `connection.py` are the command's side: they start the driver, and have a socket for
each host. `joining.py` asks the cluster what it is and refuses one that lets strangers in;
`placing.py` asks for one node per host; `carrier.py` is the actor. Only these two, `driver.py` and
`visiting.py` know Ray.
"""
