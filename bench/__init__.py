"""``python -m bench`` measures the machine's limits, the service beside these limits, and the service under load.

Other work on the machine slows a measurement down. So only ratios mean much. The best ratios compare things that were
measured in turns: ways to run a session, ways to decode, and the service with its limit and with a plain server.
"""
