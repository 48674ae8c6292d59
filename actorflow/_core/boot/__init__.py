"""Starting and stopping: session directories, the node process, the zygote, worker and driver processes."""
