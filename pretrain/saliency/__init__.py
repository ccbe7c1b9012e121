"""Two saliency-guided relatives of HARL: crops that follow the object, and queries that lose part
of it.
"""
