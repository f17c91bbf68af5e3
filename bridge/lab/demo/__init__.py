"""The whole story on one machine: ``chatapp-bridge demo``.

consumers.py    three teams that use the events, small enough to copy; nothing of Kafka in them
groups.py       a consumer group that feeds one of them from Kafka
tool.py         the bridge's own commands, run as people run them
process.py      the bridge, as a process of its own: started, killed, asked for its metrics
stage.py        all that runs: Kafka, topics, bridge, groups; taken down whatever happens
campaign.py     the provider's campaigns and their ledgers
acts.py         the story
reckoning.py    at the end: do all counts agree?
dashboard.py    how things are, for a terminal and as one line
screen.py       the narration, above the dashboard or line by line
run.py          from beginning to end, and what is said if it can't get there
command.py      the command's options
"""
