"""Product 2, in front of the Immich server: what the web and the mobile app talk to.

It fails open, the other way round than the gateway in front of the machine learning: whatever goes wrong in here, the
user gets what stock Immich answers, and the log gets one line.
"""
