"""Tests on a real FreeSWITCH, heard from both ends: a SIP phone and a WebSocket server."""
