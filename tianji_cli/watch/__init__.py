"""The live page of `tianji watch`: reads the files of runs, and shows them to a browser here."""
