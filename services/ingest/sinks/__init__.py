"""Where committed values go. `delivery` keeps order, retries and the watermark; `remote_write` speaks the protocol."""
