"""Tools with names of many kinds: which one a request needs, what its arguments are, and what its result says."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from typing import Any

from demo.lessons.chats import Chat, Shared, Turn, call
from demo.lessons.phrases import as_typed, is_held_out, phrasing
from demo.lessons.questions import Question, random_greeting
from demo.lessons.structured import SYLLABLES

CITIES = [
    "Paris",
    "London",
    "Berlin",
    "Tokyo",
    "Rome",
    "Oslo",
    "Madrid",
    "Cairo",
    "Lima",
    "Delhi",
    "Boston",
    "Vienna",
    "Beijing",
    "Seoul",
    "Dublin",
    "Prague",
]
CITIES_ZH = ["北京", "上海", "巴黎", "伦敦", "东京", "广州", "深圳", "成都", "纽约", "柏林", "罗马", "南京"]
NAMES = [
    "Anna",
    "Ben",
    "Clara",
    "David",
    "Emma",
    "Frank",
    "Lena",
    "Max",
    "Nora",
    "Oscar",
    "Paul",
    "Rosa",
    "Tom",
    "Vera",
    "Li",
    "Wang",
]
NAMES_ZH = ["小明", "小红", "李雷", "王芳", "张伟", "老王", "小李", "妈妈"]
ROOMS = ["kitchen", "bedroom", "office", "hall", "garage", "garden", "bathroom", "cellar"]
ROOMS_ZH = ["厨房", "卧室", "办公室", "客厅", "车库", "花园"]
WORDS = [
    "apples",
    "books",
    "cats",
    "music",
    "tea",
    "bread",
    "shoes",
    "lamps",
    "maps",
    "trains",
    "birds",
    "flowers",
    "games",
    "chess",
    "rivers",
]
WORDS_ZH = ["苹果", "书", "猫", "音乐", "茶", "面包", "鞋子", "地图", "火车", "花"]


@dataclass(frozen=True)
class Domain:
    """A thing that tools do: names and descriptions of the tool, its parameters, and how it is asked for."""

    verbs: tuple[str, ...]
    nouns: tuple[str, ...]
    descriptions: tuple[str, ...]
    parameters: tuple[tuple[tuple[str, ...], str, str], ...]  # names, description, pool of values
    asked: dict[str, tuple[str, ...]]
    results: tuple[str, ...]  # keys of what it returns


DOMAINS = (
    Domain(
        ("get", "check", "fetch"),
        ("weather", "forecast"),
        ("Get the weather of a city", "Weather in a place"),
        ((("city", "place", "location"), "the city", "city"),),
        {
            "en": (
                "What is the weather [in|like in] {0}?",
                "[Check|Get] the weather in {0}.",
                "How is the weather in {0}[| today]?",
            ),
            "zh": ("{0}[今天|]天气[怎么样|如何]？", "[查一下|查询]{0}的天气。"),
        },
        ("temperature", "sky", "wind"),
    ),
    Domain(
        ("get", "tell", "read"),
        ("time", "clock"),
        ("Tell the local time of a city", "Current time in a place"),
        ((("city", "zone", "place"), "the city", "city"),),
        {
            "en": ("What time is it in {0}?", "[Tell me|Get] the time in {0}."),
            "zh": ("{0}现在几点[了|]？", "[查一下|告诉我]{0}的时间。"),
        },
        ("time", "zone"),
    ),
    Domain(
        ("send", "write", "post"),
        ("mail", "message", "email"),
        ("Send a message to a person", "Write to somebody"),
        ((("to", "recipient", "person"), "who gets it", "name"), (("text", "body", "subject"), "what it says", "word")),
        {
            "en": (
                "[Send|Write] {0} a message about {1}.",
                "[Mail|Message] {0} about {1}.",
                "Tell {0} about {1} by mail.",
            ),
            "zh": ("给{0}发[一封|]消息，[内容是|关于]{1}。", "写信给{0}，说{1}。"),
        },
        ("status", "id"),
    ),
    Domain(
        ("search", "find", "look_up"),
        ("web", "shop", "catalogue"),
        ("Search for something", "Find things by a query"),
        ((("query", "term", "keywords"), "what to look for", "word"),),
        {
            "en": ("[Search|Look] for {0}.", "[Find|Search] me {0}.", "I [need|am looking for] {0}."),
            "zh": ("[搜索|查找|帮我找]{0}。", "我[想找|要]{0}。"),
        },
        ("hits", "best"),
    ),
    Domain(
        ("set", "add", "create"),
        ("alarm", "timer", "reminder"),
        ("Set an alarm", "Ring after some minutes"),
        ((("minutes", "delay", "duration"), "in how many minutes", "number"),),
        {
            "en": ("Wake me in {0} minutes.", "Set [an alarm|a timer] for {0} minutes.", "Remind me in {0} minutes."),
            "zh": ("{0}分钟后[叫我|提醒我]。", "设一个{0}分钟的[闹钟|计时器]。"),
        },
        ("status", "rings"),
    ),
    Domain(
        ("play", "start", "put_on"),
        ("music", "song", "radio"),
        ("Play music", "Start a song"),
        ((("title", "song", "track"), "what to play", "word"),),
        {
            "en": ("Play {0}.", "[Put on|Start] the song {0}.", "I want to hear {0}."),
            "zh": ("[播放|放]{0}。", "我想听{0}。"),
        },
        ("status", "length"),
    ),
    Domain(
        ("switch", "turn_on", "control"),
        ("light", "lamp"),
        ("Switch the light of a room", "Turn on a lamp"),
        ((("room", "where", "area"), "the room", "room"),),
        {
            "en": ("[Turn|Switch] on the light in the {0}.", "Light in the {0}, please.", "It is dark in the {0}."),
            "zh": ("[打开|开]{0}的灯。", "{0}[太暗了|开灯]。"),
        },
        ("status", "power"),
    ),
    Domain(
        ("open", "unlock", "release"),
        ("door", "gate"),
        ("Open a door", "Unlock the door of a room"),
        ((("room", "door", "which"), "the room", "room"),),
        {
            "en": ("[Open|Unlock] the door of the {0}.", "Let me into the {0}."),
            "zh": ("[打开|开]{0}的门。", "让我进{0}。"),
        },
        ("status", "state"),
    ),
    Domain(
        ("book", "reserve", "order"),
        ("table", "room", "ticket"),
        ("Book a ticket to a city", "Reserve a trip"),
        ((("city", "to", "destination"), "where to", "city"), (("people", "seats", "n"), "for how many", "number")),
        {
            "en": ("[Book|Reserve] a trip to {0} for {1}[| people].", "{1} tickets to {0}, please."),
            "zh": ("订{1}张去{0}的票。", "[预订|订]去{0}的行程，{1}个人。"),
        },
        ("price", "code"),
    ),
    Domain(
        ("add", "sum", "plus"),
        ("numbers", "values"),
        ("Add two numbers", "Sum of two values"),
        ((("a", "first", "x"), "the first number", "number"), (("b", "second", "y"), "the second number", "number")),
        {
            "en": ("What is {0} plus {1}?", "Add {0} and {1}.", "[Compute|Calculate] {0} + {1}."),
            "zh": ("{0}加{1}[是多少|等于几]？", "计算{0}+{1}。"),
        },
        ("sum",),
    ),
    Domain(
        ("translate", "convert"),
        ("word", "text"),
        ("Translate a word", "Say a word in another language"),
        ((("word", "text", "phrase"), "what to translate", "word"),),
        {"en": ("Translate {0}.", "How do you say {0}[| in another language]?"), "zh": ("翻译{0}。", "{0}怎么说？")},
        ("translation",),
    ),
    Domain(
        ("call", "phone", "dial"),
        ("person", "contact"),
        ("Call a person by phone", "Phone somebody"),
        ((("name", "who", "person"), "whom to call", "name"),),
        {
            "en": ("[Call|Phone|Ring] {0}.", "I want to [talk|speak] to {0}."),
            "zh": ("[打电话给|呼叫]{0}。", "我要和{0}通话。"),
        },
        ("status", "line"),
    ),
    Domain(
        ("get", "show", "quote"),
        ("price", "cost"),
        ("Price of a thing", "What something costs"),
        ((("item", "product", "thing"), "the thing", "word"),),
        {
            "en": ("[What is the price|What are the prices] of {0}?", "How much [is|are] {0}?"),
            "zh": ("{0}[多少钱|什么价格]？", "查{0}的价格。"),
        },
        ("price", "currency"),
    ),
    Domain(
        ("list", "show", "read"),
        ("calendar", "meetings"),
        ("Meetings with a person", "Appointments in the calendar"),
        ((("person", "with", "name"), "with whom", "name"),),
        {
            "en": ("When do I meet {0}?", "[List|Show] my meetings with {0}."),
            "zh": ("我什么时候见{0}？", "[列出|查看]我和{0}的会议。"),
        },
        ("day", "time"),
    ),
)
THOUGHT = {"en": "I need the tool {}.", "zh": "要用工具{}。"}
RESULT_WORDS = [
    "sunny",
    "rain",
    "cloudy",
    "ok",
    "done",
    "sent",
    "open",
    "closed",
    "Monday",
    "Friday",
    "cold",
    "warm",
    "blue",
    "north",
    "late",
    "ready",
]


@dataclass(frozen=True)
class Tool:
    """One tool of a list: its domain, its name and its parameters' names."""

    domain: Domain
    name: str
    parameters: tuple[str, ...]
    schema: dict[str, Any]


def random_lesson(rng: random.Random, chats: int, held_out: bool = False) -> tuple[Shared, list[Chat]]:
    """A list of tools, and several chats that use them."""
    domains = rng.sample(DOMAINS, rng.choice((1, 2, 2, 3, 3, 4)))
    tools = [random_tool(rng, domain, held_out) for domain in domains]
    shared = Shared(tools=tuple(tool.schema for tool in tools))
    return shared, [_chat(rng, tools, held_out) for _ in range(chats)]


def random_tool(rng: random.Random, domain: Domain, held_out: bool = False) -> Tool:
    while True:
        lot = rng.random()
        if lot < 0.5:
            name = f"{rng.choice(domain.verbs)}_{rng.choice(domain.nouns)}"
        elif lot < 0.7:
            name = rng.choice(domain.verbs).replace("_", "") + rng.choice(domain.nouns).title()
        else:
            name = "".join(rng.choice(SYLLABLES) for _ in range(2)) + rng.choice(
                ("", "_" + str(rng.randint(1, 99)), "_tool")
            )
        if held_out:
            name += rng.choice(("_v2", "_now", "_" + rng.choice(SYLLABLES)))
        elif rng.random() < 0.4:
            name += rng.choice(
                (f"_v{rng.randint(1, 9)}", "_" + rng.choice(SYLLABLES), "_now", "_api", "_" + rng.choice(WORDS))
            )
        if is_held_out(name) == held_out:
            break
    names = tuple(rng.choice(parameter[0]) for parameter in domain.parameters)
    properties = {}
    for parameter, (_, described, pool) in zip(names, domain.parameters, strict=True):
        properties[parameter] = {"type": "integer" if pool == "number" else "string"}
        if rng.random() < 0.6:
            properties[parameter]["description"] = described
    function: dict[str, Any] = {"name": name, "description": rng.choice(domain.descriptions)}
    function["parameters"] = {"type": "object", "properties": properties}
    if rng.random() < 0.6:
        function["parameters"]["required"] = list(names)
    is_wrapped = rng.random() < 0.75 or held_out  # a client of the API cannot send another
    schema = {"type": "function", "function": function} if is_wrapped else function
    return Tool(domain, name, names, schema)


def value(rng: random.Random, pool: str, language: str) -> Any:
    if pool == "number":
        return rng.randint(1, 99)
    if rng.random() < 0.2:
        return "".join(rng.choice(SYLLABLES) for _ in range(2)).title()
    pools = {
        "en": {"city": CITIES, "name": NAMES, "room": ROOMS, "word": WORDS},
        "zh": {"city": CITIES_ZH, "name": NAMES_ZH, "room": ROOMS_ZH, "word": WORDS_ZH},
    }
    return rng.choice(pools[language][pool])


def _chat(rng: random.Random, tools: list[Tool], held_out: bool) -> Chat:
    thinking = rng.random() < 0.25
    if rng.random() < 0.1:
        greeting = random_greeting(rng)
        return Chat((Turn(greeting),), thinking)
    tool = rng.choice(tools)
    language = rng.choice(("en", "en", "zh"))
    values = [value(rng, pool, language) for _, _, pool in tool.domain.parameters]
    phrase = phrasing(rng, tool.domain.asked[language]).format(*values)
    text = as_typed(rng, language, phrase)
    if not all(str(value) in text for value in values):  # a name that lost its capital
        text = phrase
    call_text = call(tool.name, dict(zip(tool.parameters, values, strict=True)))
    asked = Turn(Question("tool", language, text, "", THOUGHT[language].format(tool.name)), call=call_text)
    if rng.random() < 0.4:
        said, answer = _result(rng, tool.domain, language)
        reply = Question("result", language, said, answer, "A result." if language == "en" else "工具的结果。")
        return Chat((asked, Turn(reply, is_tool_result=True)), thinking)
    return Chat((asked,), thinking)


def _result(rng: random.Random, domain: Domain, language: str) -> tuple[str, str]:
    """What a tool returns, and the sentence that says it."""
    if rng.random() < 0.35:
        text = str(rng.randint(1, 999)) if rng.random() < 0.5 else rng.choice(RESULT_WORDS)
        return text, f"The result is {text}." if language == "en" else f"结果是{text}。"
    keys = list(domain.results) if rng.random() < 0.7 else [rng.choice(SYLLABLES) + rng.choice(SYLLABLES)]
    pairs = {}
    for key in keys[: rng.randint(1, 3)]:
        pairs[key] = rng.randint(1, 999) if rng.random() < 0.5 else rng.choice(RESULT_WORDS)
    said = [f"the {key} is {found}" if language == "en" else f"{key}是{found}" for key, found in pairs.items()]
    sentence = (", " if language == "en" else "，").join(said) + ("." if language == "en" else "。")
    return json.dumps(pairs, ensure_ascii=False), sentence[:1].upper() + sentence[1:]
