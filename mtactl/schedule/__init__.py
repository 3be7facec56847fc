"""What goes out next: lanes, windows, throttle, concurrency, retry (pure), and the dispatcher that drives them."""
