"""Jobs and messages between two processes over one Redis server, beside Pipecat's bus over the same one."""
