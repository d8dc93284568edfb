"""What a run took: records of rounds, and memory."""

from fl_opt.profiling.memory import peak_memory_bytes
from fl_opt.profiling.phases import PhaseMemory, phase_memory
from fl_opt.profiling.rounds import ClientRecord, RoundObserver, RoundRecord

__all__ = [
    "ClientRecord",
    "PhaseMemory",
    "RoundObserver",
    "RoundRecord",
    "peak_memory_bytes",
    "phase_memory",
]
