"""Pictures of a run: keep what passes on a bus, and draw it as a sequence, as a timeline, or for Perfetto."""

from workerbus.recording._files import FORMATS, Recordings, write
from workerbus.recording._jobs import RecordedJob, jobs_of
from workerbus.recording._recording import LIMIT, Recording, record
from workerbus.recording._records import Record

__all__ = ["FORMATS", "LIMIT", "Record", "RecordedJob", "Recording", "Recordings", "jobs_of", "record", "write"]
