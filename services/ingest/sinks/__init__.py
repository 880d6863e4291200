"""Where committed values go.

A commit is offered to all sinks, none of which waits for another.

    addresses.py         the list of sinks, as the settings have it
    delivery.py          hands each commit of a lane to all sinks, with order and a watermark for each of them
    backlog.py           how much may wait for all sinks together
    attempts.py          one request until it is answered; gives a failing sink rests
    samples_writer.py    gets samples taken, in requests that carry them with their times
    set_aside.py         which series are not sent for a while, since they are refused
    remote_write.py      such requests as remote write has them
    histograms.py        its native histograms
    wire.py              its protobuf, built by hand
    pushgateway.py       replaces what stands in a Pushgateway
    exposition.py        its text format
"""
