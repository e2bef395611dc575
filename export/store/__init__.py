"""The folder of builds: publishing, history and pruning."""
