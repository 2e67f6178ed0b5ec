"""What the switch reads of a request to listen, and what it refuses."""

import json

import pytest

from pylisten.simulator.request import Refusal, parse_request

URL = "ws://127.0.0.1:1/"


def test_a_url_is_enough() -> None:
    request = parse_request(URL)
    assert json.loads(request.verb) == {"url": URL}
    assert (request.name, request.rate_hz, request.mix) == ("listen", 8000, "mono")
    assert request.plays
    assert not request.includes_playback


def test_words_become_a_verb() -> None:
    request = parse_request(
        f"{URL} name=bot mixType=stereo sampleRate=16000 passDtmf=true maxLength=30"
        " bidirectionalAudio.streaming=true bidirectionalAudio.enabled=false finishOnKey=1"
        " metadata.customer=4711 metadata.share=0.5 metadata.zip=01067 headers.X-Id=7"
        """ metadata.who='Jane Doe' metadata.say="it's" metadata.list=[1,2] wsAuth={"a": "b c"}"""
    )
    assert json.loads(request.verb) == {
        "url": URL,
        "name": "bot",
        "mixType": "stereo",
        "sampleRate": 16000,
        "passDtmf": True,
        "maxLength": 30,
        "bidirectionalAudio": {"streaming": True, "enabled": False},
        "finishOnKey": "1",
        "metadata": {
            "customer": 4711,
            "share": 0.5,
            "zip": "01067",
            "who": "Jane Doe",
            "say": "it's",
            "list": [1, 2],
        },
        "headers": {"X-Id": "7"},
        "wsAuth": {"a": "b c"},
    }
    assert (request.name, request.rate_hz, request.mix) == ("bot", 16000, "stereo")
    assert not request.plays


def test_json_is_passed_on_as_it_came() -> None:
    text = '{ "url":"ws://host/x",  "metadata":{"a":"\\u00fc|^"}, "verb":"stream" }'
    assert parse_request(text).verb == text


def test_a_profile_may_bring_the_url() -> None:
    assert json.loads(parse_request("profile=bot").verb) == {"profile": "bot"}


def test_the_old_way_to_switch_playback_off() -> None:
    assert not parse_request(f"{URL} disableBidirectionalAudio=true").plays


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "url: found nothing"),
        ("ftp://host", "url: found another kind of URL, expected ws"),
        ("ws://", "url: found another kind of URL"),
        ("host.example.com", "url: found"),
        ('{"name":"x"}', "url: found nothing"),
        ("profile={}", "profile: found {}"),
        ("ws://me:secret@host/", "url: found user-info"),
        ('{"url":', "the verb is not JSON: fault near character 8"),
        ('{"verb":"dial","url":"ws://h/"}', 'verb: found "dial"'),
        (f"{URL} sampleRate=11025", "sampleRate: found 11025, expected 8000"),
        (f"{URL} sampleRate=true", "sampleRate: found true"),
        (f"{URL} mixType=both", 'mixType: found "both", expected "mono"'),
        (f"{URL} name=a,b", 'name: found "a,b", expected 1 to 64'),
        (f"{URL} name=" + "x" * 65, "name: found"),
        (f"{URL} earlyMedia=soon", 'earlyMedia: found "soon", expected true or false'),
        (f"{URL} bidirectionalAudio=yes", 'bidirectionalAudio: found "yes", expected an object'),
        (f"{URL} bidirectionalAudio.enabled=1", "bidirectionalAudio.enabled: found 1"),
        (f"{URL} bidirectionalAudio.sampleRate=8001", "bidirectionalAudio.sampleRate: found 8001"),
        (f"{URL} disableBidirectionalAudio=1", "disableBidirectionalAudio: found 1"),
        (f"{URL} name", 'found "name", expected key=value'),
        (f"{URL} name='x", 'name: found "\'x", expected a word'),
        (f"{URL} name='x'y", 'name: found "y" after the value'),
        (f"{URL} metadata={{", "metadata: found"),
        (f"{URL} url=ws://x", "url: given twice"),
        (f"{URL} url.y=1", "y: given twice, or as a value and as an object"),
        (f"{URL} metadata..y=1", "y: given twice"),
    ],
)
def test_what_is_wrong_is_named(text: str, words: str) -> None:
    with pytest.raises(Refusal) as refused:
        parse_request(text)
    assert refused.value.code == "BAD_REQUEST"
    assert words in refused.value.text
    assert "secret" not in refused.value.text
