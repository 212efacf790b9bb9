"""Image files to pixels, apart from everything else: a look at the bytes first, then a process that may die over them.

``scan`` says what a file claims to be and refuses what would cost more than a photo may. ``pillow`` decodes, wherever
it is called. ``client`` has that done by the processes of ``server``, which all pipelines of one Triton share.
"""
