"""TianJi where the user sits: commands, inventories, provisioning, reports. No gradients here."""

import sys
from os.path import abspath, dirname

# The engine beside this package, whatever else is called so where Python looks first.
sys.path.insert(0, dirname(dirname(abspath(__file__))))
from engine.search_path import working_directory_last

del sys.path[0]
working_directory_last()
