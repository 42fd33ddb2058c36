"""Workers in several processes, over Redis Streams (X1-X10).

It needs the extra ``redis``: ``pip install 'workerbus[redis]'``. Nothing else of the library imports it.
"""

from workerbus.redis._bus import RedisBus
from workerbus.redis._errors import ConnectionLost, RedisReplyError, RedisSetupError, RedisURLError
from workerbus.redis._statistics import RedisBusStatistics, RedisState

__all__ = [
    "ConnectionLost",
    "RedisBus",
    "RedisBusStatistics",
    "RedisReplyError",
    "RedisSetupError",
    "RedisState",
    "RedisURLError",
]
