"""The options of the commands, one file a subject; what they do is in the files beside this folder."""
