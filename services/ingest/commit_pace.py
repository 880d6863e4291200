"""How long a lane waits from one commit to the next."""

#: What a commit costs, here, in Postgres and in the sinks, grows with the series that changed. After one that wrote
#: many, commits come less often, so that each series is written less often for the same metrics. 30 000 changed series
#: a second, and what comes during a late commit, are not many yet: they show within three seconds.
_MANY_SERIES = 45_000
_SERIES_A_SECOND = 20_000
#: With it everything shows within five seconds.
_LONGEST_INTERVAL_SECONDS = 4.0
#: The longer the interval, the more series change in it: after so much time one usual interval decides anew, so that no
#: lane is slow for good because of a moment's backlog.
_ANEW_SECONDS = 30.0


class CommitPace:
    """The pace of one owner of a lane."""

    def __init__(self, interval_seconds: float) -> None:
        """`interval_seconds`: the usual one."""
        self._usual_seconds = interval_seconds
        self._stretched_seconds = 0.0

    def after(self, series: int) -> float:
        """Seconds from the beginning of a commit that wrote so many series to that of the next one."""
        stretched = min(series / _SERIES_A_SECOND, _LONGEST_INTERVAL_SECONDS) if series > _MANY_SERIES else 0.0
        if stretched <= self._usual_seconds or self._stretched_seconds >= _ANEW_SECONDS:
            self._stretched_seconds = 0.0
            return self._usual_seconds
        self._stretched_seconds += stretched
        return stretched
