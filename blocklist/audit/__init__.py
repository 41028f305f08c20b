"""Why a thing is blocked or not, from the record alone: no column library, an answer in milliseconds.

`thing` reads what was asked; `facts` and `releases` read the record as of a `moment`; `blocklist.select.single`
decides, `rendering` says for one format, `files` for what is published; `why` puts the answer together.
"""

from blocklist.audit.answer import Answer, InExport
from blocklist.audit.thing import Thing, around, network_text, recognise
from blocklist.audit.why import Audit

__all__ = ["Answer", "Audit", "InExport", "Thing", "around", "network_text", "recognise"]
