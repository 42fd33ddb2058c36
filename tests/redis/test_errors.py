"""What a server's errors mean."""

import pytest

from workerbus.redis import ConnectionLost, RedisReplyError


@pytest.mark.parametrize(
    ("text", "code", "temporary", "reconnect"),
    [
        ("ERR syntax error", "ERR", False, False),
        ("LOADING Redis is loading the dataset in memory", "LOADING", True, True),
        ("READONLY You can't write against a read only replica.", "READONLY", True, True),
        ("MASTERDOWN Link with MASTER is down", "MASTERDOWN", True, True),
        ("CLUSTERDOWN The cluster is down", "CLUSTERDOWN", True, True),
        ("UNBLOCKED force unblock from blocking operation", "UNBLOCKED", True, True),
        ("NOAUTH Authentication required.", "NOAUTH", False, True),
        ("BUSY Redis is busy running a script.", "BUSY", True, False),
        ("MISCONF Redis is configured to save RDB snapshots", "MISCONF", True, False),
        ("NOREPLICAS Not enough good replicas to write.", "NOREPLICAS", True, False),
        ("OOM command not allowed when used memory > 'maxmemory'.", "OOM", True, False),
        ("NOSCRIPT No matching script. Please use EVAL.", "NOSCRIPT", False, False),
        ("MOVED 3999 127.0.0.1:6381", "MOVED", False, False),
        ("NOPERM this user has no permissions to run the 'xadd' command", "NOPERM", False, False),
        ("odd", "ERR", False, False),
        ("", "ERR", False, False),
    ],
)
def test_an_error_says_what_is_to_be_done(text: str, code: str, temporary: bool, reconnect: bool) -> None:
    error = RedisReplyError(text)
    assert (error.code, error.temporary, error.reconnect, str(error)) == (code, temporary, reconnect, text)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("ERR Error running script (call to f_8): @user_script:1: @user_script: 1: -OOM command not allowed", "OOM"),
        ("@user_script: 1: -OOM command not allowed when used memory > 'maxmemory'.", "OOM"),
        ("ERR Error running script (call to f_8): @user_script:1: WRONGTYPE Operation against a key", "WRONGTYPE"),
        ("ERR Error running script (call to f_8): @user_script:1: user_script:1: x", "ERR"),
        ("READONLY You can't write against a read only replica. script: 87, on @user_script:1.", "READONLY"),
        ("ERR The user executing the script can't run this command or subcommand script: 0e", "NOPERM"),
        (
            "ERR Error running script (call to f_0): @user_script:1: The user executing the script can't",
            "NOPERM",
        ),
    ],
)
def test_an_error_inside_a_script_has_the_code_of_what_has_failed(text: str, code: str) -> None:
    """Redis 6.2 wraps it."""
    assert RedisReplyError(text).code == code


@pytest.mark.parametrize(
    "text",
    [
        "ERR unknown command `AUTH`, with args beginning with: `me`, `pa55word`, ",
        "ERR unknown command 'AUTH', with args beginning with: 'me' 'pa55word' ",
    ],
)
def test_arguments_are_not_repeated(text: str) -> None:
    """X9, O3: among them may be passwords and payloads."""
    error = RedisReplyError(text)
    assert "pa55word" not in repr(error)
    assert "unknown command" in str(error)


def test_a_lost_connection_is_a_connection_error() -> None:
    error = ConnectionLost("h:1", "it has gone", sent=True, replies=[b"OK"])
    assert isinstance(error, ConnectionError)
    assert str(error) == "no connection to the Redis server at h:1: it has gone"
    assert (error.address, error.reason, error.sent, error.replies) == ("h:1", "it has gone", True, (b"OK",))
