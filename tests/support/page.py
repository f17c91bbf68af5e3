"""The provider's own examples, and the events they are: every field but the recipient, the id and the time of receipt.

``tests/fixtures/page-template.json`` and ``page-message.json`` hold them byte for byte.
"""

from typing import Any

from bridge.report.fields import FIELDS

_NOTHING: dict[str, Any] = {
    **dict.fromkeys(field.name for field in FIELDS if field.is_nullable and field.name != "recipient"),
    "task_id_defaulted": False,
    "message_time_source": "PROVIDER",
}
PAGE_TEMPLATE = _NOTHING | {
    "message_id": "2023078469463703*******3",
    "task_id": "202307030171*******9",
    "sender": "86131*******8",
    "origin_phone_number": "86130*******8",
    "status": "FAILED",
    "provider_status": "Failed",
    "status_rank": 0,
    "message_time": 1691043638000,
    "error_code": "131026",
    "error_description": "131026:Receiver is incapable of receiving this message(Message Undeliverable.)",
    "error_category": "UNDELIVERABLE",
    "error_retry": "NO",
    "message_frame_type": "template",
    "content_type": "template",
    "template_code": "820561547132813184",
    "template_name": "wa_otp_v_0_0_3",
    "template_language": "id",
}
PAGE_MESSAGE = _NOTHING | {
    "message_id": "2023038470553398*******8",
    "task_id": "2023068473353098*******8",
    "sender": "86131*******8",
    "origin_phone_number": "86131*******8",
    "status": "READ",
    "provider_status": "Read",
    "status_rank": 3,
    "message_time": 1691132091000,
    "error_category": "NONE",
    "error_retry": "NONE",
    "conversation_id": "72222201111****",
    "conversation_type": "service",
    "message_frame_type": "message",
    "content_type": "interactive",
}
