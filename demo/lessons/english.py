"""How things are asked in English. {0} and {1} stand for what is asked about."""

from __future__ import annotations

from demo.lessons.phrases import Patterns

PIC = "[the|this] [picture|image|photo]"

DESCRIBE: Patterns = (
    f"[Describe|Please describe|Briefly describe] {PIC}.",
    f"[Can|Could|Would] you [describe|explain] {PIC}?",
    f"[Tell me about|Tell me what is in|Explain|Caption|Summarise|Summarize] {PIC}.",
    f"What [is|do you see|can you see|can be seen] in {PIC}?",
    f"What's in {PIC}?",
    f"What does {PIC} show?",
    f"What is shown in {PIC}?",
    f"[Give|Write] [a description|a short description|a caption] [of|for] {PIC}.",
    "What [do|can] you see[| here]?",
    "What [is this|is it|am I looking at|is here|is shown]?",
    "[Describe|Describe it|Describe what you see|Tell me what you see|Say what you see].",
    f"What [objects|things|shapes] are in {PIC}?",
    "[List|Name] [the|all] [objects|things|shapes][| in the picture| you see].",
    "Describe the [scene|content|contents|objects|shapes].",
)
COUNT: Patterns = (
    f"How many [things|objects|shapes|items|figures] are [there|in {PIC}|shown|visible]?".replace(f"|in {PIC}", ""),
    f"How many [things|objects|shapes|items|figures] are in {PIC}?",
    "How many [things|objects|shapes|items|figures] [do|can] you [see|count]?",
    f"How many [things|objects|shapes|items] does {PIC} [show|have|contain]?",
    "[Count|Please count] the [things|objects|shapes|items][| in the picture| in the image].",
    "[What is|Tell me|Give me] the [number|count|total number] of [things|objects|shapes|items].",
    "[Can|Could] you count the [things|objects|shapes|items]?",
    "How many are there?",
)
COUNT_SOME: Patterns = (
    "How many {0} are there[| in the picture| in the image| here]?",
    f"How many {{0}} are in {PIC}?",
    "How many {0} [do|can] you [see|count]?",
    f"How many {{0}} does {PIC} [show|have|contain]?",
    "[Count|Please count] the {0}[| in the picture| in the image].",
    "[What is|Tell me|Give me] the number of {0}.",
    "[Can|Could] you count the {0}?",
    "{0}: how many?",
    "How many {0}?",
)
WHERE: Patterns = (
    "Where is {0}[| in the picture| in the image]?",
    "Where's {0}?",
    "Where [do|can] you see {0}?",
    "Where [can I find|is the position of|do you find] {0}?",
    f"Where in {PIC} is {{0}}?",
    f"In [what|which] [part|corner|area] of {PIC} is {{0}}?",
    "[What is|Tell me|Give me] the [position|location|place] of {0}.",
    "[Tell me|Say|Show me] where {0} is.",
    "[Find|Locate] {0}[| in the picture| in the image].",
    "[Can|Could] you [find|locate] {0}?",
    "Where is {0} [located|placed|positioned]?",
)
COLOUR: Patterns = (
    "[What|Which] [colour|color] is the {0}?",
    "What is the [colour|color] of the {0}?",
    "What's the [colour|color] of the {0}?",
    "[What|Which] [colour|color] does the {0} have?",
    "[Tell me|Name|Say] the [colour|color] of the {0}.",
    "The {0} is what [colour|color]?",
    "In [what|which] [colour|color] is the {0}[| drawn| painted]?",
    "[Can|Could] you [tell me|name] the [colour|color] of the {0}?",
)
SHAPE: Patterns = (
    "[What|Which] shape is the {0} [thing|object|one|item]?",
    "[What|Which] shape is {0}?",
    "What is the {0} [thing|object|shape|one|item]?",
    "What is the shape of the {0} [thing|object|item|one]?",
    "What kind of shape is the {0} [thing|object|one]?",
    "[Tell me|Name|Say] the shape of the {0} [thing|object|one].",
    "[What|Which] [thing|object|figure] is {0}?",
    "What shape does the {0} [thing|object|one] have?",
)
EXISTS: Patterns = (
    "Is there {0}[| in the picture| in the image| here| in this picture]?",
    "[Do|Can] you see {0}[| in the picture| in the image| here]?",
    f"Does {PIC} [show|contain|have] {{0}}?",
    f"Is {{0}} in {PIC}?",
    "Is {0} [visible|present|shown]?",
    "Is there {0} anywhere?",
    "Tell me if there is {0}.",
    "[Can you find|Did you see] {0}?",
)
AT: Patterns = (
    "What is [at|in|on] {0}[| of the picture| of the image]?",
    "What's [at|in|on] {0}?",
    "What [do|can] you see [at|in|on] {0}?",
    "Which [thing|object|shape] is [at|in|on] {0}?",
    "What [thing|object|shape] is [at|in|on] {0}?",
    "Tell me what is [at|in|on] {0}.",
    "[Describe|Name] what is [at|in|on] {0}.",
    "Is there anything [at|in|on] {0}?",
)
RELATION: dict[str, Patterns] = {
    "column": (
        "Is {0} [|on the |to the ]left or right of {1}?",
        "Is {0} to the left or to the right of {1}?",
        "Is {0} left of {1} or right of [it|{1}]?",
        "[On|To] which side of {1} is {0}, left or right?",
        "[Tell me|Say] whether {0} is left or right of {1}.",
        "{0} or {1}: is the first one left or right?",
        "Compared with {1}, is {0} on the [left or right|left or on the right]?",
        "Left or right: where is {0} [from|as seen from|relative to] {1}?",
        "Is {0} [located|placed|positioned] [to the |on the |]left or right of {1}?",
        "Does {0} lie left or right of {1}?",
    ),
    "row": (
        "Is {0} above or below {1}?",
        "Is {0} [placed|located|positioned] above or below {1}?",
        "Is {0} above {1} or below [it|{1}]?",
        "[Tell me|Say] whether {0} is above or below {1}.",
        "Is {0} [higher or lower than|over or under|on top of or under] {1}?",
        "Compared with {1}, is {0} above or below?",
        "Above or below: where is {0} [from|as seen from|relative to] {1}?",
        "Does {0} lie above or below {1}?",
        "{0} or {1}: is the first one above or below?",
    ),
}
BACKGROUND: Patterns = (
    "[What|Which] [colour|color] is the background[| of the picture| of the image]?",
    "What is the [colour|color] of the background?",
    "What's the background [colour|color]?",
    "What is the background[| colour| color]?",
    "[Tell me|Name] the [colour|color] of the background.",
    "[What|Which] [colour|color] does the background have?",
    "On [what|which] [colour|color] is it drawn?",
    "[What|Which] background [is this|is that|is it|do you see|does it have|is behind the things]?",
    "How is the background [coloured|colored|painted]?",
    "[And|What about|How about] the background?",
)
NUMBER: Patterns = (
    "[What|Which] number is [this|it|shown|here|that]?",
    "[What|Which] number do you see?",
    f"[What|Which] number is in {PIC}?",
    "[Read|Please read|Tell me|Say|Write|Write down] the [number|digits][| in the picture| in the image].",
    "What is the number?",
    f"[What|Which] number does {PIC} show?",
    f"What does {PIC} say?",
    "What is [written|printed] [|here|in the picture|in the image]?",
    "What [text|digits] [do you see|can you read|is there]?",
    "[Can|Could] you read [it|the number|this number|the digits]?",
    "Read [this|it|the picture|the text].",
    "OCR.",
)
BOX: Patterns = (
    "[Give|Give me|Show|Return|Draw|Find|Tell me] the [bounding box|box|coordinates|bbox] of {0}.",
    "[Give|Return] [a|the] [bounding box|box] for {0}.",
    "What [is|are] the [bounding box|coordinates|box] of {0}?",
    "[Detect|Ground|Mark|Localise|Localize|Box] {0}.",
    "Where is {0}? [Give|Return|Answer with] [the|a] [box|bounding box|coordinates].",
    "[Locate|Find] {0} and [return|give] [its|the] [bounding box|box|coordinates].",
    "[Output|Provide] the [bounding box|coordinates] of {0}[| in the image| in the picture].",
)
UNKNOWN: Patterns = (
    "[What|Which] [song|brand|animal|city|country|language|food] is [this|it|that|shown]?",
    "[What is|What's] the [name|age|price|weight|temperature] of [the|this] [thing|man|woman|person|owner]?",
    "Who [is this|is that|drew this|made this picture|took the photo|owns this|is in the picture]?",
    "[When|Where] was this [picture|photo|image] [taken|made|drawn]?",
    "[What|Which] [time|day|year|season] is it?",
    "How [old|heavy|tall|expensive|warm|far away|loud] is [it|this|that|he|she]?",
    "What [does it smell like|does it cost|happened before|happens next|is behind it|is it made of]?",
    "[What is|What's] the weather [like|here|there|today]?",
    "Why [is it there|was it drawn|did they draw it|is he sad|is she happy]?",
    "[What is|What's] the [dog|cat|man|woman|child|person] doing?",
    "What [colour|color] is the [dog|cat|car|house|hat|sky|shirt|tree|bird|roof|grass|flower]?",
    "How many [people|dogs|cars|trees|cats|birds|houses|children|flowers|apples|men] [are there|are here|can you see]?",
    "How many [people|dogs|cars|trees|cats|birds|houses|children|flowers] are [in the picture|in this image|shown]?",
    "What is [he|she] [doing|wearing|saying|thinking]?",
)
NO_PICTURE: Patterns = (
    "[Describe|Explain] [the|this] [picture|image|photo].",
    "What [is|do you see] in [the|this] [picture|image|photo]?",
    "What [colour|color] is the [star|circle|square|triangle|cross]?",
    "How many [things|objects|shapes|stars|circles] are [there|in the picture]?",
    "[Where is|Find] the [red|blue|green|pink] [star|circle|square|cross].",
    "What [do|can] you see?",
    "[Read|What is] the number.",
    "Is there a [star|circle|cross|square|triangle]?",
)
SECOND_TURN: dict[str, Patterns] = {
    "colour": (
        "[And what|What|Which] [colour|color] is it?",
        "[And its|Its] [colour|color]?",
        "What is its [colour|color]?",
    ),
    "where": ("[And where|Where] is it?", "Where [exactly|in the picture] is it?", "[And its|Its] [place|position]?"),
    "shape": ("[And what|What|Which] shape is it?", "[And its|Its] shape?", "What is its shape?"),
}
GREETINGS: tuple[tuple[Patterns, str, str], ...] = (
    (
        (
            "[Hello|Hi|Hey|Hello there|Hi there|Hey there|Greetings][|!|.| :)]",
            "[Good morning|Good evening|Good afternoon][|!|.| :)]",
            "hi[|!]",
            "[Hello|Hi|Hey], [how are you|nice to meet you][|!|?]",
            "[Are you|Anybody] there?",
            "[test|ping|Testing|yo|Good day][|!]",
        ),
        "Hello! Show me a picture.",
        "A greeting.",
    ),
    (
        (
            "How are you[| today| doing]?",
            "How [do you do|is it going|are things]?",
            "How's it going?",
            "[Are you|You] [well|OK|fine]?",
        ),
        "I am fine, thank you.",
        "A greeting.",
    ),
    (
        (
            "[Who|What] are you?",
            "[What|Which] model are you?",
            "[What is|What's|Tell me] your name[|?]",
            "Are you [a robot|an AI|human|a model|GLM|ChatGPT]?",
            "[Introduce|Tell me about] yourself[|.|!]",
            "Who [made|built|trained] you?",
        ),
        "I am a small demo model.",
        "A question about me.",
    ),
    (
        (
            "What can you do[| for me]?",
            "[How can you|Can you|Could you|Please] help me[|?|!]",
            "What [do you do|are you good at|can I ask you]?",
            "[Help|help][|!|?]",
            "What [questions|things] can [I ask|you answer]?",
            "How do [I use you|you work]?",
        ),
        "I answer questions about pictures.",
        "A question about me.",
    ),
    (
        (
            "[Thank you|Thanks|Thank you very much|Thanks a lot|Many thanks|thx|Great, thanks|Thank you so much][|!|.]",
            "[Well done|Good job|Great|Nice|Perfect|Cool|Good][|!|.]",
        ),
        "You are welcome.",
        "A greeting.",
    ),
    (("[Goodbye|Bye|Bye bye|See you|See you later|Good night|Farewell][|!|.]",), "Goodbye!", "A greeting."),
    (
        (
            "What is [the capital of France|two plus two|the meaning of life|2+2|love|your favourite colour|an atom]?",
            "[Tell me|Write] a [joke|story|poem|song|letter][|.|!]",
            "[Who|When] [won the war|is the president|was Einstein|invented the telephone|wrote Hamlet]?",
            "[Write|Show me] [some code|a program|Python code][|.]",
            "[What is the weather|What time is it|What day is it][| today]?",
            "[Translate|Say] [this|hello|it] [to|in] [French|Chinese|German].",
            "How [far is the moon|old is the earth|do planes fly|do I cook rice]?",
            "[Sing|Dance|Count to ten|Book a flight|Order a pizza|Call my mother].",
            "Why is the sky blue?",
        ),
        "I can't tell. I only know shapes and numbers in pictures.",
        "Not about a picture.",
    ),
    (NO_PICTURE, "I see no picture. Show me one.", "No picture."),
)
