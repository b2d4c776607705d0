"""What a workload of agents asks of a KV cache, computed from recorded or generated sessions.

Pure: takes sessions one at a time, reads no file and no clock, draws nothing.
"""
