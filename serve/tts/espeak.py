"""espeak-ng: formant synthesis for a hundred languages, installed by pip alone."""

from __future__ import annotations

from serve.contracts import SpeechRequest
from serve.errors import BadRequest
from serve.tts.hosted import HostedOptions, HostedSpeech


class Options(HostedOptions):
    """Options of espeak.

    Attributes:
        voice: A voice of espeak, a variant behind a plus.
    """

    voice: str = "en-us+klatt"


class Espeak(HostedSpeech):
    """Speaks; audio as it is made, in a child process. Any voice that espeak knows."""

    Options = Options
    child = "serve.tts.espeak_child:Speaking"

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self._options = options
        self._rate = 22050

    def voice_of(self, request: SpeechRequest) -> tuple[str, int]:
        """Return the voice asked for, or the one of the language."""
        # Letters, digits and the like only: the name reaches a C library, and paths are none of a caller's business.
        voice = request.voice or request.language or self._options.voice
        if not all(character.isalnum() or character in "+-_" for character in voice):
            raise BadRequest("voice", "only letters, digits, +, - and _")
        return voice, self._rate
