"""What traces say: rows or data frames in, data frames or plain values out. No files but `run`."""
