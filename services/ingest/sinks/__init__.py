"""Where committed values go.

`delivery` hands each commit of a lane to all sinks, and keeps order and a watermark for each of them. A sink's writer
gets the samples taken: `samples_writer` in requests that carry samples with their times (`remote_write` speaks that
protocol), `pushgateway` by replacing what stands there. `attempts` retries, and gives a failing sink rests.
"""
