"""Many callers at once, and fastrnn in turn with other libraries; `suite.py` runs both."""
