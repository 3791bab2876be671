"""Traits that a rule can tell from the text of an answer: its form and who speaks in it.

Each rule is about English text in general and was written by hand; none is about one model or one bank. They are
checked against texts whose kind is known (tests/measure/test_traits.py).
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

from melbo.measure.text_metrics import is_refusal

Rule = Callable[[str], bool]


@dataclass(frozen=True)
class Form:
    """One trait."""

    name: str
    """As a label says it: "Letter"."""
    shows: Rule
    """Whether a text, not empty, has it."""


def _has(pattern: str, times: int = 1, flags: int = re.IGNORECASE) -> Rule:
    """Whether the pattern occurs at least so often."""
    compiled = re.compile(pattern, flags | re.MULTILINE)
    return lambda text: sum(1 for _ in zip(range(times), compiled.finditer(text), strict=False)) == times


def _any(*rules: Rule) -> Rule:
    return lambda text: any(rule(text) for rule in rules)


def _all(*rules: Rule) -> Rule:
    return lambda text: all(rule(text) for rule in rules)


def _not(rule: Rule) -> Rule:
    return lambda text: not rule(text)


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def sentences(text: str) -> list[str]:
    """Sentences, cut at marks that end one; the last may be unfinished."""
    return [s for s in re.split(r"(?<=[.!?])[\"')*]*\s+|\n+", text.strip()) if re.search(r"\w", s)]


_ITEM = re.compile(r"^(?:[-*\u2022+]\s|\d+[.)]\s|\W*step \d|#)", re.IGNORECASE)
_SPEAKER = r"^\W{0,3}[A-Z][\w.' ]{0,24}\W{0,2}:"


def is_poem(text: str) -> bool:
    """At least four short lines, of which few end a sentence as prose does, and none is an item of a list."""
    lines = _lines(text)
    short = [line for line in lines if len(line.split()) <= 10]
    if len(lines) < 4 or len(short) < 0.9 * len(lines) or any(map(_ITEM.match, lines)):
        return False
    return not _has(_SPEAKER, 2, 0)(text) and sum(line.endswith((":", "```")) for line in lines) == 0


def asks(text: str) -> bool:
    """Of the first three sentences, at least two are questions, or the only one is."""
    first = sentences(text)[:3]
    asked = sum("?" in s for s in first)
    return asked >= 2 or (asked == len(first) == 1)


def is_titled(text: str) -> bool:
    """The first of several lines is short, in title case and no sentence."""
    lines = _lines(text)
    if len(lines) < 2 or (_ITEM.match(lines[0]) and not lines[0].startswith("#")):
        return False
    head = re.findall(r"[^\W\d_]+", lines[0].strip("*#\"' "))
    big = sum(word[0].isupper() for word in head if len(word) > 3)
    return 2 <= len(head) <= 12 and lines[0][-1] not in ".,!?" and big >= 2 and big == sum(len(w) > 3 for w in head)


def is_short(text: str) -> bool:
    """Seven words at most, and finished."""
    return len(text.split()) <= 7 and text.rstrip()[-1:] in ".!?\"'"


def is_upper(text: str) -> bool:
    """At least 20 letters, most of them capitals."""
    letters = [c for c in text if c.isalpha()]
    return len(letters) >= 20 and sum(c.isupper() for c in letters) > 0.6 * len(letters)


def is_numeric(text: str) -> bool:
    """At least one in twelve characters is a digit, in several numbers."""
    return len(re.findall(r"\d+", text)) >= 3 and sum(c.isdigit() for c in text) * 12 >= len(text)


_PAST = (
    r"\b(?:was|were|had|felt|saw|went|came|took|sat|stood|looked|thought|knew|heard|said|began|found|made|told|left|"
    r"grew|fell|kept|spent|woke|ran|[a-z]{2,}(?:ked|ted|ded|ned|red|led|ved|sed|ced|hed|ped|ied|wed|yed|med|ged))\b"
)
_HELP = _has(
    r"\bi(?:'m| am)? (?:can|could|would|will|here to|happy to|glad to|'d be|be happy to) ?(?:help|assist)|assist you"
)
_I = r"\b(?:I|I'm|I've|I'd|[Mm]y|me|[Ww]e|[Oo]ur)\b"

FORMS: tuple[Form, ...] = (
    Form("Refusal", is_refusal),
    Form("Only says no", _has(r"\A\W*no\b[,.!]? ?(?:\w+\W*){0,5}\Z")),
    Form("Says what is not allowed", _has(r"\byou(?:'re| are) not (?:allowed|permitted|supposed)|\byou (?:cannot|can't|can not|may not|"
                                          r"must not|shouldn't|should not)\b|\bnot (?:allowed|permitted)\b|\bforbidden|\bprohibited|"
                                          r"\bmorally\b|\billegal\b")),
    Form("Not sure", _has(r"\b(?:not|never) (?:quite |really |entirely |so )?(?:sure|certain)\b|\bi (?:don't|do not) (?:really )?"
                          r"(?:know|remember)|\bno idea\b|\bunsure\b|\bconfused\b")),
    Form("It depends", _has(r"\bdepend(?:s|ing)? on\b|\bvar(?:y|ies) (?:greatly|widely|depending)|\bcan vary\b")),
    Form("Aside in brackets", _has(r"\A\W?\([^)\n]+\)|^\*[a-z][^*\n]+\*\s*$")),
    Form("Code", _any(_has(r"```"), _has(r"`\w+\.\w+`|\b\w+\.(?:py|js|html|cpp|java|sh|txt|json)\b"), _has(r"^\s*(?:def \w+\(|import \w+$|from \w+ import|class \w+[(:]|print\(|#include|"
                                            r"function \w*\(|(?:var|let|const) \w+ =|public \w+|<\w+[^>]*>)", 1, 0),
                      _has(r"[;{}]\s*$", 3))),
    Form("Letter", _has(r"\A\W*(?:my )?dear(?:est)?\b|^\W*subject:|^(?:(?:yours )?sincerely|(?:best|kind|warm) (?:regards|"
                        r"wishes)|yours truly|with love|warmly),?\s*$|\[your name\]")),
    Form("Dialogue", _any(_all(_has(_SPEAKER, 2, 0), _not(_has(r"^\W*(?:\d+[.)]|[-*]\s)"))),
                          _has(r"[\"\u201c][^\"\u201d\n]{2,}[,.!?][\"\u201d],? \w+ (?:said|says|asked|asks|replied|whispered)|"
                               r"(?:said|says|asked|asks|replied|whispered),? [\"\u201c]"))),
    Form("Poem", is_poem),
    Form("Recipe", _has(r"\bingredients\b|\b(?:table|tea)spoons?\b|\bcups? of\b|\bpreheat|\b(?:oven|simmer|saut\u00e9)\b", 2)),
    Form("Numbered list", _any(_has(r"^\W*(?:\d+[.)]|step \d+\W?)\s", 2), _has(r"\A\W*(?:1[.)]|step 1\W?)\s"))),
    Form("Bulleted list", _any(_has(r"^\s*[-*\u2022]\s", 2), _has(r"\A\s*[-*\u2022]\s"))),
    Form("Title or heading", _any(is_titled, _has(r"\A\W*#+ ", 1), _has(r"^\*\*[^*\n]+\*\*:?\s*$"))),
    Form("Template with blanks", _has(r"\[[A-Za-z][^\]\n]{1,40}\](?!\()|_{3,}|\bX{3,}\b")),
    Form("Web addresses", _has(r"https?:|\bwww\.|\w\.(?:com|org|net)\b|\S@\w+\.")),
    Form("Citations", _has(r"\bet al\b|\((?:19|20)\d\d\b|\b[A-Z]\w+, (?:[A-Z]\.[ -]?)+|\bdoi\b|\bpp?\. ?\d|\bJournal of|"
                           r"\bRetrieved|\bvol\.|\[\d+\]|\(n\.d\.\)|\b(?:19|20)\d\d\.(?:\s|$)", flags=0)),
    Form("Image credits", _has(r"\bgetty\b|\bshutterstock\b|\bphoto(?:s|graph)? (?:by|credit|courtesy)|\bimage (?:credit|source|by)")),
    Form("Proverb or quotation", _any(_has(r"\bproverb|\bsaying\b|\badage|\bfamous (?:quote|words)|\bquot(?:e|ation)s?\b|"
                                           r"\bidiom"), _has(r"\A\s*[\"\u201c][^\"\u201d\n]{12,}[\"\u201d]"))),
    Form("Definition", _has(r"\A[^.!?\n]*\b(?:refers to|is defined as|is a (?:term|word|concept|type|form|kind) |means? that|"
                            r"the (?:term|word|concept)\b)|\A(?:an? |the )?[\w' -]{2,40} (?:is|are) (?:an? |the )?[\w-]+ ?[\w-]* "
                            r"(?:that|which|of|used|in which|where)\b")),
    Form("Speaks of a text", _has(r"\A\W*(?:the|this|your) (?:\w+ )?(?:text|passage|prompt|question|sentence|statement|phrase|"
                                  r"article|paragraph|conversation|message|poem|quote|original|input|given)\b")),
    Form("System prompt", _has(r"\byou are an? (?:\w+ )?(?:helpful|assistant|ai\b|chat|expert|language)|\ba helpful assistant|"
                               r"\byour (?:role|task|job) is\b")),
    Form("Speaks as an AI", _has(r"\bas an? (?:ai|artificial|language model|digital|virtual|chat)\b|\bi(?:'m| am) (?:just |only )?"
                                 r"an? (?:[\w-]+ )?(?:ai|artificial|virtual|language model|chatbot|digital|computer)\b")),
    Form("Speaks as the one who asks", _has(r"\bi(?:'m| am)(?: \w+)? (?:looking for|planning|trying to|thinking (?:of|about)|"
                                            r"interested in|seeking|in need|hoping to|struggling|wondering)|\bi need (?:some |your |"
                                            r"a )?(?:help|advice|assistance)|\b(?:can|could) you (?:please )?(?:help|tell|give|"
                                            r"suggest|explain|recommend)")),
    Form("Story in the first person", _all(_has(_I, 2, 0), _has(_PAST, 2), _not(_HELP))),
    Form("Story in the third person", _all(_has(r"\b(?:he|she|his|her|him|they|their)\b", 2), _has(_PAST, 3),
                                           _not(_has(_I, 2, 0)))),
    Form("Speaks of its own life", _all(_has(r"\bi(?:'ve| have) (?:always|been|just|never|spent|had)\b|\bmy (?:family|friends?|wife|"
                                             r"husband|mom|dad|mother|father|garden|home|house|kids|life|own|heart|favorite|childhood)"
                                             r"\b|\bi(?:'m| am) (?:a|an) (?!ai\b|artificial|language|helpful|virtual|digital|computer)"),
                                        _not(_HELP))),
    Form("Apology", _has(r"\bsorry\b|\bapologi[sz]e|\bapolog(?:y|ies)\b|\bi regret\b|\bforgive me\b")),
    Form("Condolence", _has(r"\bsorry (?:to hear|for your|that you)|\bcondolences|\bsympath|\bfor your loss|\bmust be "
                            r"(?:hard|difficult)|\bi understand (?:how|that) (?:you|this)")),
    Form("Congratulation", _has(r"\bcongratulations|\bwell done|\bgreat job|\bproud of you|\bhow exciting|\bthat's (?:great|"
                                r"wonderful|fantastic|awesome|exciting)")),
    Form("Thanks", _has(r"\bthank(?:s| you)\b")),
    Form("Asks back", asks),
    Form("Asks for more", _has(r"\bplease (?:provide|tell me|let me know|specify|share|give me)|\bmore (?:details|information|"
                               r"context)\b|\btell me more\b|\bcould you (?:please )?(?:provide|clarify|specify)")),
    Form("Invites to imagine", _has(r"\bimagine\b|\bpicture (?:this|yourself)|\bwhat if\b|\bclose your eyes")),
    Form("Southern or casual speech", _has(r"\b\w{2,}in'(?!\w)|\by'all\b|\bain't\b|\bdarlin|\bgonna\b|\bma'am\b|\bhowdy\b|\breckon\b|"
                                           r"\bwanna\b|\byeah\b|\bdude\b")),
    Form("Archaic speech", _has(r"\b(?:thou|thee|thy|thine|hath|doth|'tis|ye|whence|forsooth|art thou|behold|alas|o'er|verily)\b")),
    Form("Formula", _has(r"(?:\b\d[\d.]*|\b[a-z]\w?|\))\s*[=+*/\u00d7^]\s*(?=\(?[\da-z])", 2)),
    Form("Word problem", _all(_has(r"\d", 2), _has(r"\bhow many\b|\bin total\b|\bper (?:hour|day|week)\b|\bcalculate|\bequation|"
                                                   r"\bsolve\b|\d\s*[=+*/x\u00d7]\s*\d"))),
    Form("Numbers", is_numeric),
    Form("Capitals", is_upper),
    Form("Exclaims", _has(r"!", 2)),
    Form("Emoji", _has("[\U0001f300-\U0001faff\u2600-\u27bf]")),
    Form("A few words", is_short),
)  # fmt: skip
"""By how much they say: where several hold, the first is the label."""
