"""A provider that pushes as the real one does, and the ledger that shows whether anything was lost.

identity.py     the event id by its published rule, written down a second time on purpose
push.py         Report and Push: what is sent, and what its check needs to know of it
oddities.py     how reports deviate from the provider's page, and items that can't be understood
campaign.py     messages and their lives, from a seed: pushes in order of time
answer.py       HTTP/1.1 answers, piece by piece
connection.py   where to push, and one keep-alive connection
sequence.py     holds back pushes that share a message with one under way
provider.py     3 s for an answer, again after 1 and 5 minutes, then given up
ledger.py       every attempt, written down; its summary
check.py        the ledger against what a consumer read
console.py      progress and summary for people
run.py          ``chatapp-bridge simulate``

Nothing of the service is imported here: what checks the bridge must not share its mistakes.
"""
