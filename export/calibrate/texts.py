"""Texts to calibrate with: questions and the beginnings of answers, of the kinds that a chat model gets."""

TEXTS = (
    ("Hello, who are you?", "Hello! I am an assistant that can look at pictures and answer questions about them."),
    ("你好，请介绍一下你自己。", "你好！我是一个可以看图并回答问题的助手。请问有什么可以帮您？"),
    (
        "Why is the sky blue? Answer for a child.",
        "Sunlight looks white, but it is a mix of all colours. The air scatters blue light to all sides much more than "
        "red light, so wherever you look up, some blue light comes to your eyes. In the evening the light has a longer "
        "way through the air, and mostly red is left of it.",
    ),
    (
        "Write a Python function that returns the n-th Fibonacci number.",
        "```python\ndef fibonacci(n: int) -> int:\n    a, b = 0, 1\n    for _ in range(n):\n        a, b = b, a + b\n"
        "    return a\n```\nIt takes n steps and keeps only two numbers at a time.",
    ),
    (
        'Give me the address as JSON: "Anna Berg, 12 Mill Lane, Leeds LS1 4AP".',
        '{"name": "Anna Berg", "street": "Mill Lane", "number": 12, "city": "Leeds", "postcode": "LS1 4AP"}',
    ),
    (
        "A train leaves at 9:40 and arrives at 13:05. How long does the journey take?",
        "From 9:40 to 13:00 it is 3 hours and 20 minutes, and 5 minutes more to 13:05. The journey takes "
        "<|begin_of_box|>3 hours 25 minutes<|end_of_box|>.",
    ),
    (
        "请用三句话说明什么是光合作用。",
        "光合作用是植物利用阳光把水和二氧化碳变成糖和氧气的过程。它主要发生在叶子的叶绿体里。"
        "几乎所有动物所需的氧气和食物都直接或间接来自它。",
    ),
    (
        "Translate into Chinese: The meeting has been moved to Thursday afternoon, because the large room is taken.",
        "会议改到了星期四下午，因为大会议室已经被占用了。",
    ),
    (
        "Summarise: The museum opens a new wing next spring. It will show paintings of the last hundred years, most of "
        "them never seen in public, and entry is free in the first month.",
        "Next spring the museum opens a wing for a century of paintings, many shown for the first time; the first "
        "month is free.",
    ),
    (
        "What should I check before I buy a used bicycle?",
        "1. **Frame**: look for cracks and dents, above all around the welds.\n2. **Brakes**: both must stop the wheel "
        "at once.\n3. **Chain and gears**: shift through all of them while you pedal.\n4. **Wheels**: spin them; they "
        "should run straight.\n5. **Papers**: ask for a receipt and compare the frame number.",
    ),
    (
        "把下面的句子改得更礼貌：“把文件发给我。”",
        "“麻烦您方便的时候把文件发给我，谢谢！”",
    ),
    (
        "Which is larger, 3/7 or 5/12? Show your steps.",
        "Bring both to the same denominator: 3/7 = 36/84 and 5/12 = 35/84. Since 36 > 35, 3/7 is larger.",
    ),
)
