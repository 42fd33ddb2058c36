"""Workers in several processes, over Redis Streams (X2, X9).

It needs the extra ``redis``: ``pip install 'workerbus[redis]'``. Nothing else of the library imports it.
"""

from workerbus.redis._errors import ConnectionLost, RedisReplyError, RedisSetupError, RedisURLError

__all__ = ["ConnectionLost", "RedisReplyError", "RedisSetupError", "RedisURLError"]
