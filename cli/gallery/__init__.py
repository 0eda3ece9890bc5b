"""`suture gallery`: one file a command, `group.py` for the group."""
