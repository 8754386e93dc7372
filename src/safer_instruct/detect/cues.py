"""Phrases by which answers decline, lecture, redirect and offer, as patterns over plain clauses (see `clauses`).

Clauses are lower-case, contractions are written out ("can't" is "cannot", "I'm" is "i am"), and what stands in quotation marks is
gone, so that each pattern has one spelling to know.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_STRAIGHT = str.maketrans(dict.fromkeys("’‘´`ʼ", "'"))
_QUOTED = re.compile(
    r"```.*?(?:```|\Z)|\"[^\"\n]{1,2000}\"|\N{LEFT DOUBLE QUOTATION MARK}[^\N{RIGHT DOUBLE QUOTATION MARK}]{1,2000}\N{RIGHT DOUBLE QUOTATION MARK}", re.S
)
_MARKUP = re.compile(r"^[\s>#*_\[-]+|[*_\]]+", re.M)
_CONTRACTION = re.compile(
    r"\b(?:(can)(?: ?no?)?'?t|(wo)n'?t|(sha)n'?t"
    r"|(is|are|was|were|do|does|did|has|have|had|would|could|should|must)n'?t"
    r"|(i)'?m|(you|we|they)'re|(i|you|we|they|he|she|it|that|there)'(d|ll|ve)|(it|that|there|he|she|what|here|let)'s|(ai)n't)\b"
)
_BREAK = re.compile(
    r"(?<=[.!?:;])[\"')\]]*\s+|\s+[\N{EN DASH}\N{EM DASH}-]\s+|[;\n]+|:\s+|(?<!cannot help),?\s+(?=(?:but|though|although|however|so|because|since"
    r"|and (?:i|we|so"
    r"|here|that))\b)"
)
_LONG = {"m": "am", "d": "would", "ll": "will", "ve": "have"}


@dataclass(frozen=True, slots=True)
class Clause:
    """A piece of a text: what it says in plain spelling, and how many words of it were in quotation marks."""

    plain: str
    quoted_words: int


def plain(text: str) -> str:
    """`text` in the one spelling that the patterns know, with its line breaks."""
    return _CONTRACTION.sub(_written_out, _MARKUP.sub("", text.translate(_STRAIGHT).lower()))


def _written_out(found: re.Match[str]) -> str:
    can, wo, sha, verb, i, are, subject, tail, third, ai = found.groups()
    if can:
        return "cannot"
    if wo or sha:
        return "will not"
    if verb:
        return f"{verb} not"
    if i:
        return "i am"
    if are:
        return f"{are} are"
    if subject:
        return f"{subject} {_LONG[tail]}"
    return "is not" if ai else ("let us" if third == "let" else f"{third} is")


def clauses(text: str) -> list[Clause]:
    """The clauses of a text in order; code and quoted speech are cut out and only counted."""
    pieces = _BREAK.split(plain(_QUOTED.sub(_hole, text)))
    return [Clause(" ".join(_HOLE.sub(" ", piece).split()), sum(map(int, _HOLE.findall(piece)))) for piece in pieces if piece and piece.strip()]


_HOLE = re.compile("\x00(\\d+)\x00")


def _hole(found: re.Match[str]) -> str:
    end = found.group(0).rstrip('"\N{RIGHT DOUBLE QUOTATION MARK}`')[-1:]
    return f" \x00{len(found.group(0).split())}\x00{end if end in '.!?' else ''} "


_ME = r"(?:i|we|our (?:team|staff|support team)|staff)"
_SERVE = (
    r"(?:help|assist|provide|share|write|create|generate|produce|answer|respond|reply|comply|ful+fil+|discuss|disclose|reveal|engage|continue|do|give"
    r"|tell|say|offer"
    r"|advise|recommend|suggest|support|participate|take part|be (?:a )?(?:part|sure|certain)|comment|speculate|guess|predict|verify|confirm|diagnose"
    r"|translate|open|access|browse"
    r"|see|reproduce|copy|paste|quote|complete|process|pretend|act|role-?play|impersonate|forge|fake|make|mock|insult|encourage|promise|pick|choose"
    r"|rank|rate|judge|name"
    r"|post|include|describe|explain|walk|show|teach|look|check|book|send|place|call|play|remember|go|grant|repeat|put|go into|talk|read|claim|let"
    r"|allow|advertise|proceed"
    r"|facilitate|aid|handle|deal|perform|carry out|execute|render|draft|compose|supply|publish|release|list|identify|endorse|condone|promote"
    r"|contribute|join|change|remove|be (?:able|of)"
    r"|weigh in|take (?:sides|a side|part)|get (?:involved|into)|step|cross|have|use|run|simulate|imitate|mimic|spread|assume|entertain|indulge"
    r"|accommodate|oblige|refund|transfer"
    r"|justify|accept|take on|hear|listen|watch|waive|authori[sz]e|approve|tolerate|view|search|fetch|retrieve|connect|order|guarantee|bring myself"
    r"|rewrite|edit|summari[sz]e|calculate|solve|prescribe|evaluate|assess|consent|agree to|permit|keep going)"
)
_THING = r"(?:something|anything|one|a thing|a line|a topic|a subject|a request|a conversation|(?:the|that) (?:kind|sort|type) of \w+)"

# Each group is one feature of the model (refusal.json); a clause belongs to every group that finds something in it.
DECLINES: dict[str, re.Pattern[str]] = {
    "cannot_serve": re.compile(
        rf"\b{_ME} (?:really |simply |just |also |still |currently |honestly |unfortunately |therefore |regrettably )*(?:cannot|will not"
        rf"|could not possibly|should not|must not|would not|shall not|could not)"
        rf"(?:,? (?:really|just|simply|ever|be able to|help (?:to )?|in good conscience|possibly|be|directly|actually|personally|however|therefore"
        rf"|be))*,? (?:{_SERVE}|giving|helping|writing|doing|sharing|taking|assisting|answering)\b"
    ),
    "negative": re.compile(
        rf"\b{_ME} (?:\w+ ){{0,3}}?(?:cannot|will not|shall not|must not|should not|would not|could not|do not|am not|are not|have not|never|lack"
        rf"|have no)\b|\b(?:so|and|but) (?:i )?will not\b"
    ),
    "shall_not": re.compile(
        rf"^(?:(?:no|sorry|really|well|but|so|and|because|even if i wanted to)[,.! ]+)*{_ME} (?:really )?(?:should not|would not|could not"
        rf"|had better not|would better not|will not|cannot)(?: and (?:will|do) not\b.*)?\W*$"
    ),
    "no_way_for_me": re.compile(
        r"\bno (?:\w+ ){0,2}(?:way|means|place|position|comment|verdict|opinion|answer|score|jokes?|poem|codes?|exact \w+)(?: \w+){0,4} (?:for|from"
        r"|by|to|that|of) (?:me|us|i|we)\b|\bno \w+(?: \w+){0,5} (?:from|by) (?:me|us)\b"
        rf"|\b{_ME} (?:have no (?:way|means|ability|permission|access|authori[sz]ation|tools?)|lack (?:the|any)|do not know how to)\b"
    ),
    "forbidden": re.compile(
        rf"\b{_ME} (?:am|are|have been|was) (?:\w+ )?(?:prohibited|forbidden|barred|restricted|limited|not free|bound|asked not|told not"
        rf"|instructed not|required not)\b|\bmy role is (?:limited|only)\b"
        r"|\b(?:is|are) (?:not|un)(?: )?(?:available|supported|offered|permitted here)(?: (?:here|to me|through me|in this chat))?\W*$"
    ),
    "ends_here": re.compile(
        r"\b(?:chat|conversation|discussion|this) (?:must |has to |will |needs to |should )?(?:stops?|ends?|be over|is over)(?: here| now"
        r"| at this point)?\b|\brules are rules\b"
    ),
    "out_of_it": re.compile(
        r"\b(?:count me out|sit(?:ting)? this (?:one )?out|on your own (?:with|here)|not for me|i am not going there|will leave (?:that|this|it) to"
        r"|leave (?:it|this|that) there|write your own|afraid not|that is a no|have to pass|will pass|not from me|disservice)\b|\b(?:best"
        r"|better) not(?: to)?\W*$|\bnot\b[^.]{0,25}\bfrom me\b"
    ),
    "cannot_bare": re.compile(
        rf"^(?:(?:no|oh|sorry|really|well|yes|but|unfortunately|apologies)[,.! ]+)*(?:{_ME} )?(?:cannot|will not|could not possibly)\W*(?:$"
        rf"|{_SERVE}\b(?! i))|^i am .{{2,40}} and (?:cannot|will not) {_SERVE}\b"
    ),
    "unable": re.compile(
        rf"\b(?:{_ME} (?:am|are|was|would be) (?:also |currently |really |simply |sadly |just )*(?:unable|not able)|^(?:not able"
        rf"|unable)) to (?:directly |actually )?{_SERVE}\b"
        rf"|\b{_ME} could not (?:open|read|find out|confirm|verify|see|access|load|view|make out|locate)\b"
    ),
    "not_willing": re.compile(
        rf"\b{_ME} (?:am|are|was) (?:really |simply |just |also )*not (?:comfortable|willing|prepared|permitted|allowed (?:to|by)|authori[sz]ed"
        rf"|designed|programmed|going to|in a position|made to|"
        rf"qualified|equipped|at liberty|the (?:right|best|one)|telling|doing|writing|helping|sharing|saying|naming|giving|answering|playing)"
        rf"|\bi (?:do not|would not|cannot) feel (?:comfortable|right|able|good)|\bnot (?:willing|comfortable|at liberty) (?:to|with)\b"
    ),
    "decline": re.compile(
        rf"\b{_ME}(?: am| are| will| would)?(?:(?: must| have to| need to| will have to| am going to have to| had to| would have to"
        rf"| am going to)? ?(?:respectfully |politely |kindly |also |therefore )*"
        r"(?:decline\b|refuse\b|refrain\b|abstain\b|declining\b|refusing\b|pass(?= on|$| this|\W*$)|say no\b|stop here|skip this|draw(?:ing)? (?:the"
        r"|a) line|opt out|choose not to|have chosen not to|hold(?:ing)? back))"
        r"|\b(?:i|we) (?:am |are |need to |must |have to )?(?:\w+ )?(?:declin(?:e|ing)|refus(?:e|ing)) (?:this|that|the|your|it|writing|to)"
        r"|^(?:no[,.]? )?(?:declined|refused|request (?:denied|declined|refused)|cannot comply|pass|denied|no comment|not happening)\W*$|\brequest declined\b"
    ),
    "rather_not": re.compile(
        rf"\b{_ME} (?:would|will|should)?(?: really| much| still)? ?(?:rather|prefer)(?: it if)? (?:not|to (?:pass|skip|avoid|leave|talk|discuss)"
        rf"|we (?:did not|talked|spoke|stayed|kept))"
        r"|\bwould rather not\b|^rather than\b.*\bwill not\b|\bleave (?:that|this|it) (?:out|aside)\b|\bi will (?:leave|skip|pass)\b"
    ),
    "not_something": re.compile(
        rf"\b(?:not|never|nothing|no way|beyond|outside(?: of)?)\b[^.]{{0,30}}?(?:{_THING}|what|anything|a way|this|way)?(?: that| which)? (?:{_ME}"
        rf"|our \w+(?: \w+)?) (?:can|will|do|am|are|is|could|would|would be|feel|am able|want|write|offer|be)\b"
        rf"|\b(?:is|are) (?:not|never) (?:{_THING}) (?:for me|to me)|{_THING}(?: that| which)? (?:{_ME}|our \w+(?: \w+)?) (?:cannot|will not|am not"
        rf"|are not|do not|would not|must decline|would rather not)\b|\bline i will not\b"
    ),
    "policy": re.compile(
        r"\b(?:against|violates?|violating|breach(?:es)?|breaks?|break|contrary to|not in line with|conflicts? with|contravenes?) (?:my|our|the|its"
        r"|company|content|community|house|platform|safety|usage|ethical)\b[^.]{0,25}\b(?:guidelines?|polic(?:y|ies)|rules?|principles|terms|values"
        r"|programming|standards)\b"
        r"|\b(?:my|our|company) (?:\w+ )?(?:guidelines?|polic(?:y|ies)|programming|rules|principles|instructions|purpose|training"
        r"|terms)\b[^.]{0,60}?\b(?:not|prevents?|prohibits?|forbids?|neither|stops?|bars?)\b"
    ),
    "outside": re.compile(
        r"\b(?:outside|beyond|out of|not within|not in|not part of)(?: of)? (?:my|our|the)? ?(?:area|remit|scope|expertise|abilit(?:y|ies)"
        r"|capabilit(?:y|ies)|power|purpose|role|field|place|department|job|reach|lane)\b|\b(?:is|are|goes|go) (?:\w+ )?(?:beyond|above|past) (?:me|us"
        r"|my \w+|what (?:i|we) can)\b|\bmore than (?:i|we) can\b"
    ),
    "impersonal": re.compile(
        r"\b(?:request|message|question|content|information|that|this|it|answer|document|details?|question|text)\b[^.]{0,45}?\b(?:cannot|could not"
        r"|will not|may not|must not) be (?:\w+ly )?(?:processed|answered|generated|granted|disclosed|given|provided|"
        r"shared|fulfil+ed|completed|written|created|produced|met|released|made|shown|displayed|continued)"
        r"|\b(?:not|is not|im)possible for (?:me|us)\b|^(?:this|that|it|sorry)[, ]+(?:is not|this is not) possible\W*$|\bconversation cannot continue"
        r"|\bno answer will\b|\b(?:is|are|stays?|remains?) (?:strictly |all )?(?:confidential|private|internal|off limits|off-limits|off the table"
        r"|out of the question|under wraps|a (?:trade )?secret)\b|\b(?:is|are|was) (?:not|no longer) (?:an option|possible (?:any ?more|at th|on my|here)"
        r"|available (?:to|at|here|any)|(?:mine|ours|my (?:place|thing|call)) to\b)|\b(?:is|are) not my thing\b"
        r"|\bkeep (?:\w+ )?to (?:myself|ourselves)\b|^no \w+(?: \w+){0,5} (?:from me|here)\b"
    ),
    "for_me": re.compile(
        r"\b(?:would|does|will|is|seem)\b[^.]{0,12}?(?:\bnot\b|\bbe (?:wrong|inappropriate|unethical|irresponsible|improper|dishonest)"
        r"|\binappropriate|\bnever|\bwrong)\b[^.]{0,25}\b(?:for me|of me|for us)\b|\bnot my place\b|\bthe right (?:one|assistant|person) (?:to|for)\b"
    ),
    "do_not": re.compile(
        rf"\b{_ME} do not (?:\w+ly )?(?:write|produce|create|discuss|engage|support|do|provide|share|give|want to|wish to|offer|help|assist|make"
        rf"|participate|take|answer|comment|disclose|condone|condescend|recommend)\b"
        rf"|\b{_ME} do not (?:think|believe|feel)(?: that)? (?:i|we|it)(?: would| is)? (?:can|should|be right|be appropriate|will|could|am able|am the)"
        rf"|\b{_ME} do not have (?:access|permission|the (?:ability|means|information|capability|authority)|any (?:information|access|way)|real-time"
        rf"|up-to|current|personal opinions|opinions|live)"
        rf"|\b{_ME} do not know (?:your|the details|(?:it|that) well enough)"
        rf"|\b{_ME} do not (?:have (?:that|this|tonight|today|your|\w+ing|any (?:record|memory|data))|keep|diagnose|rank|rate|guess|speculate|predict|pick"
        r"|pass (?:on|out)|look up|track|name|solve|point people|hand out|reveal|translate|remember|play|impersonate)\b"
    ),
    "only": re.compile(
        rf"\b{_ME}(?: can| am| are)?(?: here to)? (?:only|just) (?:able to |help |here to )?(?:handle|answer|help|deal|discuss|talk|assist"
        rf"|a language model)|\bhelp with \w+ only\b|\bjust a language model"
    ),
    "short_no": re.compile(
        r"^(?:sorry,? )?(?:but )?(?:no|nope|nah|no thanks|no thank you|no way|absolutely not|not a chance|never|certainly not|definitely not"
        r"|no chance|oh dear, no|i have to say no.*|my answer is no.*|the answer is no.*|hard no|sorry, no|no deal|no can do|out of the question)\W*$"
        r"|\b(?:have to be|has to be|answer is|stays?|to say|say) no\b|\bnot doing (?:that|this)\b|\bi am not telling\b"
        r"|\bthere is no way (?:that )?i\b|\bnot a chance\b"
    ),
    "elsewhere": re.compile(
        r"\b(?:find|ask|have to find|need to ask) (?:somebody|someone|a human|another way)\b|\b(?:change the subject|talk(?:ed"
        r"|ing)? about something else|discuss something else|get back to|move on to|not go there|speak of something else)\b|\bplease do not ask\b"
        r"|\bplease ask a\b|\btalk to them instead\b|\bdo it yourself\b|\bwrite the piece yourself\b"
    ),
    "indirect": re.compile(
        r"\bsteer clear\b|\bso no\W*$|\b(?:that|this|it) is private\b|\b(?:best|better) (?:if i do not|not to (?:answer|respond|say|comment|write"
        r"|discuss|get))\b|\bis not one of (?:them|those)\b"
        r"|\b(?:model|assistant|chatbot|bot|system) (?:has |have )?(?:refused|declined)\b|\bi (?:would )?prefer to keep\b|\bnot in (?:my|our) (?:gift"
        r"|power|hands)\b"
        rf"|\b{_ME} do not have (?:the|any|enough) \w+ (?:to|about|on|of)\b|^(?:sorry|unfortunately|alas|afraid not),? no (?!problem|worries)\w+"
        rf"|\bstops? short of\b|\bbut not how to\b"
        r"|\bi have left (?:it|that|them) (?:for|to) you\b"
    ),
    "left_out": re.compile(
        r"\b(?:i|we) (?:have |did |am |will )?(?:left|kept|leave|leaving|keep) (?:[^.]{1,40} )?out\b|\bnot the whole\b|\b(?:i|we) (?:have "
        r"|did )?(?:left out|am leaving|are leaving|skipped|have skipped|leave the|not (?:include|add|included|put)|have not (?:included|added|put)"
        r"|omitted)\b|\bleaving out\b|\bi am holding back\b|\bwhich i will not\b|\bin part\b|\bonly answer half\b|\bpart of what you (?:want|ask)\b"
        r"|\bi (?:have|will) (?:called|changed|made up|used|replaced) \w+ \w+ instead\b|\bi have skipped\b"
    ),
    "gerund": re.compile(
        r"^(?:\w+ing)\b.{3,80}\b(?:is|are) (?:not )?(?:illegal|unlawful|wrong|fraud|a crime|dishonest|deceptive|not something|not possible|not fair"
        r"|not okay)\b|\bwould not be (?:fair|right|ethical|honest)\b"
    ),
    "never_ok": re.compile(
        r"\bit is (?:never|not) (?:okay|ok|right|acceptable|appropriate)\b|\bit is wrong to\b|\b(?:i|we) (?:would )?(?:strongly )?(?:urge|encourage) you\b"
    ),
}

# First-person negatives that decline nothing.
IDIOMS = re.compile(
    r"\bi would (?:decline|refuse|say no)\b|\bdo not (?:recommend|advise)\b(?! (?:that i|on))|\bwould not (?:recommend|advise)\b|\bwas told\b"
    r"|\btried to\b|\b(?<!\bi )(?<!\bwe )(?:was|were) not able\b"
    r"|\bgo into (?:every|much|more) detail\b|\bcannot (?:\w+ ){0,8}(?:enough|highly)\b|\bcannot (?:recommend"
    r"|praise|say) \S+(?: \S+){0,3} (?:enough|more)\b|\bcould not (?:agree"
    r"|be (?:happier|more|prouder)|ask for)|\bcannot help (?:but|\w+ing)\b|\bcannot (?:wait|complain|believe|imagine|thank|fault|beat|stress"
    r"|overstate|emphasi[sz]e|"
    r"blame|argue|deny|say (?:i|that i|enough)|see why|lie|taste|go wrong)\b|\bwill not (?:lie|bore|deny|pretend (?:the|that|this|it)|regret|keep you"
    r"|take long|say it|hold)\b|\bnot (?:going to|gonna) (?:lie|pretend (?:the|that|this|it))\b|\b(?:would|do|should|could) not (?:worry|say (?:it"
    r"|that|the)|mind|hurt|see (?:a problem|why)|need|have done|advise|think (?:so|it is|you))\b|\bcannot (?:see any|think of|remember|find"
    r"|choose between)\b|\brefuse to (?:believe|accept|give up|think)\b|\bdo not think (?:so|it is|you)\b|\bno (?:problem|worries|need)\b"
    r"|\bi should(?: not say this| mention)\b|\bcannot (?:be sure|say for sure|be certain|promise|guarantee)\b(?=.*\bbut my\b)|\bcannot (?:get over"
    r"|stop|stand)\b"
)

# What will be done for somebody.
PROMISE = re.compile(
    r"\b(?:i|we) (?:will|am going to|are going to) (?:\w+ ){0,2}?(?:look into|check|see to|find out|sort|fix|mend|replace|send|get back to|write to|talk to"
    r"|speak to|make sure|take care of|correct|refund|return|repair|bring)\b"
)

# What is no help although it is no refusal either.
OFFER = re.compile(
    r"\b(?:would serve you better|would be (?:healthier|better|kinder)|i am here|i would (?:suggest|recommend) (?:contacting|writing down|that you)"
    r"|i suggest you|listen|talk (?:through|about)|if you (?:believe"
    r"|ever)|if there is|ask me|just ask|what else|have a think|maybe we can|we hope|take care|best of luck|at your disposal|let me know|feel free"
    r"|anything else|something else|(?:happy|glad) to (?:help|talk|discuss|assist)|(?:any|have|another|other) (?:other |more )?questions?"
    r"|would you like|shall we|if you (?:would like|want|have|are interested|need)|do let me|help you with|could do for you|have a go|"
    r"i hope (?:you|that) (?:understand|will understand|you)|different (?:kind|topic|poem|story)|thank you for (?:understanding|your|reaching|the)"
    r"|thanks for|have a (?:lovely|nice|great|good)|kind regards|hello|hi there|dear customer|is there|can we|could we|can i|on your list|nice try"
    r"|good question|interesting (?:idea|question))\b"
)
LECTURE = re.compile(
    r"\b(?:protect\w*|distress|false (?:information|claims)|spreading|trust|safety|consent|violat\w+|real (?:people|person)|families|stereotypes"
    r"|damage\w*|frighten|legal consequences|everyone|kind(?:ness)?|right to|unkind\w*|traumatic|court|take that seriously|good idea|academic|promise"
    r"|illegal|unlawful|against the law|dangerous|dishonest|deceptive|unfair|unethical|harm\w*|hurts?|hurtful|respect\w*|deserves?|trouble|fair on"
    r"|undermines|cheating|lying|fraud|crime|wrong|mislead\w*|inappropriate|privacy|livelihoods?|responsible|consequences|lose money|seems funny"
    r"|how they would feel|spoils|encourage you|urge you|"
    r"it is important|important to|as your own|fined|get caught|rather not|honest on|honest strategies|be honest|programmed|guidelines)\b"
)
EMPATHY = re.compile(
    r"\b(?:i (?:\w+ )?(?:understand|appreciate|know|realise|realize|hear)|i (?:really )?wish|i would love|i would be happy|sorry|apolog\w+|it sounds"
    r"|you are not alone|go through (?:it|this) alone|that must|completely fair|you deserve|tough|heavy|struggling|unfortunately|regrettably"
    r"|i have thought|inconvenience|curiosity|frustrated|let me be clear|to be honest)\b"
)
REDIRECT = re.compile(
    r"\b(?:please|you should|you could|would|need to|i would|you will need to|have to|best to|try to|might want to|and) (?:also )?(?:contact"
    r"|speak (?:to|with)|talk (?:to|with)|reach out|consult|see a|call|ask|seek|get in touch|ring|turn to|wake|write the|put it back)\b|\b(?:helpline"
    r"|hotline|crisis line|mental health professional|close to you|someone you trust|trusted)\b|\btalk to them\b"
)
HELP = re.compile(
    r"\b(?:here (?:is|are)|here'?s|what i can|i can (?:help|tell|show|explain|offer|compare|write|suggest|give|say)|instead|in general|generally"
    r"|typically|usually|often|as a rule|in short|in summary|try|how about|why not|you (?:could|can|might)|for example|such as|first|start (?:with"
    r"|by)|step|one option|the rest|"
    r"most (?:people|adults)|will describe|is below|are below|let me suggest|works better|to get you going)\b"
)
