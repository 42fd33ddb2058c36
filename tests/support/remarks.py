"""Messages with a text, for either lane."""

from workerbus import BusDataMessage, BusSystemMessage, bus_message


@bus_message
class Remark(BusDataMessage):
    text: str = ""


@bus_message
class UrgentRemark(BusSystemMessage):
    text: str = ""
