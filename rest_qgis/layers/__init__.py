"""The layers a job makes in the project: the live layer and what it becomes."""
