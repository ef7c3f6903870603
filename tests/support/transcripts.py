# ruff: noqa: E501
"""What models of each family write when they call a tool, with what is in it."""

from __future__ import annotations

TOOL = {"type": "function", "function": {"name": "get_weather", "parameters": {
    "type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"},
                                     "tags": {"type": "array"}, "more": {"type": "object"},
                                     "maybe": {"type": ["string", "null"]}, "either": {"anyOf": [{"type": "string"}, {"type": "integer"}]}}}}}  # fmt: skip
CITY = {"city": "Paris"}
# Family, what the model writes, the text before, the arguments of each call. From the sources of tools.json.
TRANSCRIPTS = [
    ("hermes", 'Sure.\n<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>',
     "Sure.", [CITY]),
    ("hermes", '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>\n<tool_call>\n'
     '{"arguments": {"city": "東京", "days": 2}, "name": "get_weather"}\n</tool_call>', "",
     [CITY, {"city": "東京", "days": 2}]),
    ("hermes", '<tool_call>{"name": "get_weather", "arguments": "{\\"city\\": \\"Paris\\"}"}', "", [CITY]),
    ("hermes", "I write about <tool_call> here.", "I write about <tool_call> here.", []),
    ("hermes", '<tool_call>\n{"name": "get_weather", "arguments": {"city":\n</tool_call>',
     '<tool_call>\n{"name": "get_weather", "arguments": {"city":\n</tool_call>', []),
    ("qwen3-coder", "<tool_call>\n<function=get_weather>\n<parameter=city>\nParis\n</parameter>\n<parameter=days>\n3\n"
     "</parameter>\n</function>\n</tool_call>", "", [{"city": "Paris", "days": 3}]),
    ("qwen3-coder", "Let me see.\n\n<function=get_weather>\n<parameter=city>\nA\nB\n</parameter>\n</function>",
     "Let me see.", [{"city": "A\nB"}]),
    ("glm", "<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>Paris</arg_value>\n"
     "<arg_key>tags</arg_key>\n<arg_value>[1, 2]</arg_value>\n</tool_call>", "", [{"city": "Paris", "tags": [1, 2]}]),
    ("minimax-m2", '<minimax:tool_call>\n<invoke name="get_weather">\n<parameter name="city">Paris</parameter>\n'
     '</invoke>\n<invoke name="get_weather">\n<parameter name="days">1</parameter>\n</invoke>\n</minimax:tool_call>',
     "", [CITY, {"days": 1}]),
    ("dots", '<dots_function_call>\n<invoke name="get_weather">\n<parameter name="city">Paris</parameter>\n</invoke>\n'
     "</dots_function_call>", "", [CITY]),
    ("seed-oss", "<seed:tool_call>\n<function=get_weather>\n<parameter=city>Paris</parameter>\n"
     "<parameter=more>{'a': True}</parameter>\n</function>\n</seed:tool_call>", "", [{"city": "Paris", "more": {"a": True}}]),
    ("kimi", "Hm.<|tool_calls_section_begin|><|tool_call_begin|>functions.get_weather:0<|tool_call_argument_begin|>"
     '{"city": "Paris"}<|tool_call_end|><|tool_calls_section_end|>', "Hm.", [CITY]),
    ("deepseek-v3.1", "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>get_weather<｜tool▁sep｜>"
     '{"city": "Paris"}<｜tool▁call▁end｜><｜tool▁calls▁end｜>', "", [CITY]),
    ("deepseek-v3", "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather\n```json\n"
     '{"city": "Paris"}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>', "", [CITY]),
    ("deepseek-v3.2", '<｜DSML｜function_calls>\n<｜DSML｜invoke name="get_weather">\n<｜DSML｜parameter name="city" '
     'string="true">12</｜DSML｜parameter>\n<｜DSML｜parameter name="days" string="false">12</｜DSML｜parameter>\n'
     "</｜DSML｜invoke>\n</｜DSML｜function_calls>", "", [{"city": "12", "days": 12}]),
    ("harmony", '<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>{"city": "Paris"}', "", [CITY]),
    ("harmony", ' to=functions.get_weather<|channel|>commentary json<|message|>{"city": "Paris"}<|call|>', "", [CITY]),
    ("harmony", "I'll look.<|end|><|start|>assistant<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>"
     '{"city": "Paris"}<|call|>', "I'll look.", [CITY]),
    ("harmony", 'functions.get_weather <|constrain|>json<|message|>{"city": "Paris"}<|call|><|start|>assistant<|channel|>'
     "commentary to=functions.get_weather <|constrain|>json<|message|>{}<|call|>", "", [CITY, {}]),
    ("harmony", "I write functions.get_weather here.", "I write functions.get_weather here.", []),
    ("mistral-v11", '[TOOL_CALLS]get_weather[CALL_ID]abcdef123[ARGS]{"city": "Paris"}', "", [CITY]),
    ("apertus", '<|tools_prefix|>[{"get_weather": {"city": "Paris"}}, {"get_weather": {}}]<|tools_suffix|>', "", [CITY, {}]),
    ("cohere", '<|START_ACTION|>[\n    {"tool_call_id": "0", "tool_name": "get_weather", "parameters": {"city": "Paris"}}\n]'
     "<|END_ACTION|>", "", [CITY]),
    ("gemma-4", 'So.<|tool_call>call:get_weather{city:<|"|>Pa"ris, {x: 1}<|"|>,days:2,tags:[<|"|>a<|"|>,true]}<tool_call|>',
     "So.", [{"city": 'Pa"ris, {x: 1}', "days": 2, "tags": ["a", True]}]),
    ("functiongemma", "<start_function_call>call:get_weather{city:<escape>Paris<escape>}<end_function_call>", "", [CITY]),
    ("gigachat-3.1", '<|function_call|>{"name": "get_weather", "arguments": {"city": "Paris"}}', "", [CITY]),
    ("gigachat-3", 'function call<|role_sep|>\n{"name": "get_weather", "arguments": {"city": "Paris"}}', "", [CITY]),
    ("lfm2", """<|tool_call_start|>[get_weather(city="a) 'b'", days=-2, more={"a": true}), get_weather()]<|tool_call_end|>""",
     "", [{"city": "a) 'b'", "days": -2, "more": {"a": True}}, {}]),
    ("lfm2", "<|tool_call_start|>[get_weather('Paris')]<|tool_call_end|>",
     "<|tool_call_start|>[get_weather('Paris')]<|tool_call_end|>", []),
    ("olmo-3", "<function_calls>\nget_weather(city='Paris', tags=null)\nget_weather()\n</function_calls>", "",
     [{"city": "Paris", "tags": None}, {}]),
    ("llama-4", '[get_weather(city="Paris"), get_weather(days=1)]', "", [CITY, {"days": 1}]),
    ("llama-4", "[no_such_tool(city='Paris')]", "[no_such_tool(city='Paris')]", []),
    ("llama-4", "See [get_weather(city='Paris')]", "See [get_weather(city='Paris')]", []),
    ("longcat", '<longcat_tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</longcat_tool_call>', "", [CITY]),
    ("minicpm-5", '<function name="get_weather"><param name="city"><![CDATA[<b>]]></param><param name="days">2</param></function>',
     "", [{"city": "<b>", "days": 2}]),
    ("step-3", '<｜tool_calls_begin｜><｜tool_call_begin｜>function<｜tool_sep｜><steptml:invoke name="get_weather">'
     '<steptml:parameter name="city">Paris</steptml:parameter></steptml:invoke><｜tool_call_end｜><｜tool_calls_end｜>', "", [CITY]),
    ("deepseek-v4", '<｜DSML｜tool_calls>\n<｜DSML｜invoke name="get_weather">\n<｜DSML｜parameter name="city" '
     'string="true">Paris</｜DSML｜parameter>\n</｜DSML｜invoke>\n</｜DSML｜tool_calls>', "", [CITY]),
    ("deepseek-v4.1", 'Sure.\n\n<｜DSML｜ calls>\n<｜DSML｜ invoke name="get_weather">\n<｜DSML｜ parameter name="city" '
     'string="true">Paris</｜DSML｜ parameter>\n</｜DSML｜ invoke>\n<｜DSML｜ invoke name="get_weather">\n</｜DSML｜ invoke>\n'
     '</｜DSML｜ calls>', "Sure.", [CITY, {}]),
    ("gigachat-3.5", '<｜GCML｜tool_calls>\n<｜GCML｜invoke name="get_weather">\n<｜GCML｜parameter name="city" '
     'string="true">Paris</｜GCML｜parameter>\n</｜GCML｜invoke>\n</｜GCML｜tool_calls>', "", [CITY]),
    ("minimax-m1", '<tool_calls>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n{"name": "get_weather", '
     '"arguments": {}}\n</tool_calls>', "", [CITY, {}]),
    ("hermes", 'I write <tool_call> first. <tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>',
     "I write <tool_call> first.", [CITY]),
    ("mistral", '[TOOL_CALLS] [{"name": "get_weather", "arguments": {"city": "Paris"}, "id": "abcdef123"}, '
     '{"name": "get_weather", "arguments": {}}]', "", [CITY, {}]),
    ("mistral-v11", 'Yes.[TOOL_CALLS]get_weather[ARGS]{"city": "Paris"}[TOOL_CALLS]get_weather[ARGS]{}', "Yes.", [CITY, {}]),
    ("phi-4-mini", '<|tool_call|>{"name": "get_weather", "arguments": {"city": "Paris"}}<|/tool_call|>', "", [CITY]),
    ("granite-3", '<|tool_call|>[{"name": "get_weather", "arguments": {"city": "Paris"}}]', "", [CITY]),
    ("nemotron", '<TOOLCALL>[{"name": "get_weather", "arguments": {"city": "Paris"}}]</TOOLCALL>', "", [CITY]),
    ("hunyuan", '<tool_calls>\n[{"name": "get_weather", "arguments": {"city": "Paris"}}]\n</tool_calls>', "", [CITY]),
    ("llama-3", '{"name": "get_weather", "parameters": {"city": "Paris"}}', "", [CITY]),
    ("llama-3", '<|python_tag|>{"name": "get_weather", "parameters": {"city": "Paris"}}; '
     '{"name": "get_weather", "parameters": {}}', "", [CITY, {}]),
    ("llama-3", '{"name": "no such tool", "parameters": {}}', '{"name": "no such tool", "parameters": {}}', []),
    ("llama-3", '{"type": "function", "name": "get_weather", "arguments": {"city": "Paris"}}', "", [CITY]),
    ("hermes", '<tool_call>\n{"name": "get_weather", "parameters": {"city": "a\nb"}}\n</tool_call>', "", [{"city": "a\nb"}]),
    ("hermes", '<tool_call>\n{"name": "get_weather", "arguments": null}\n</tool_call>', "", [{}]),
    ("hermes", '<tool_call>\n[{"name": "get_weather", "arguments": {}}, {"name": "get_weather", "arguments": {"days": 1}}]\n</tool_call>',
     "", [{}, {"days": 1}]),
    ("hermes", '<tool_call>\n[{"name": "get_weather", "arguments": {}}, 1]\n</tool_call>',
     '<tool_call>\n[{"name": "get_weather", "arguments": {}}, 1]\n</tool_call>', []),
    ("hermes", 'Sure.\n<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>\nDone.',
     "Sure.\nDone.", [CITY]),
    ("qwen3-coder", "<tool_call>\n<function=get_weather>\n<parameter=city>\nParis\n<parameter=days>\n3\n</parameter>\n</tool_call>",
     "", [{"city": "Paris", "days": 3}]),
    ("qwen3-coder", "<tool_call>\n<function=get_weather>\n<parameter=city>\nParis\n</parameter>\n</func", "", [CITY]),
    ("qwen3-coder", "<tool_call>\n<function=get_weather>\n<parameter=city>\nParis\n</parameter>\n",  # others may have been to come
     "<tool_call>\n<function=get_weather>\n<parameter=city>\nParis\n</parameter>\n", []),
    ("qwen3-coder", "<tool_call>\n<function=get_weather>\n<parameter=maybe>\nNone\n</parameter>\n<parameter=either>\n3\n</parameter>\n"
     "<parameter=city>\nNone\n</parameter>\n</function>\n</tool_call>", "", [{"maybe": None, "either": 3, "city": "None"}]),
    ("qwen3-coder", "<tool_call>\n<function=get_weather>\n<parameter=maybe>\n3\n</parameter>\n<parameter=either>\n3 days\n</parameter>\n"
     "</function>\n</tool_call>", "", [{"maybe": "3", "either": "3 days"}]),
    ("mistral-v11", '[TOOL_CALLS]get_weather{"city": "Paris"}', "", [CITY]),
    ("mistral-v11", '[TOOL_CALLS][{"name": "get_weather", "arguments": {"city": "Paris"}}]', "", [CITY]),
    ("mistral", '[TOOL_CALLS]get_weather[ARGS]{"city": "Paris"}', "", [CITY]),
    ("granite-3", '<tool_call>[{"name": "get_weather", "arguments": {"city": "Paris"}}, {"name": "get_weather", "arguments": {}}]',
     "", [CITY, {}]),
    ("phi-4-mini", 'functools[{"name": "get_weather", "arguments": {"city": "Paris"}}]', "", [CITY]),
    ("kimi", "<|tool_calls_section_begin|><|tool_call_begin|>get_weather<|tool_call_argument_begin|>"
     '{"city": "Paris"}<|tool_call_end|><|tool_calls_section_end|>', "", [CITY]),
    ("harmony", '<|channel|>analysis to=functions.get_weather <|constrain|>json<|message|>{"city": "Paris"}<|call|>', "", [CITY]),
    ("internlm", 'Sure.<|action_start|><|plugin|>\n{"name": "get_weather", "parameters": {"city": "Paris"}}<|action_end|>', "Sure.", [CITY]),
    ("granite-20b", '<function_call> {"name": "get_weather", "arguments": {"city": "Paris"}}<function_call> '
     '{"name": "get_weather", "arguments": {}}', "", [CITY, {}]),
    ("hunyuan-3", "<tool_calls:opensource>\n<tool_call:opensource>get_weather<tool_sep:opensource>\n<arg_key:opensource>city"
     "</arg_key:opensource>\n<arg_value:opensource>Paris</arg_value:opensource>\n</tool_call:opensource>\n</tool_calls:opensource>",
     "", [CITY]),
    ("xlam", '[{"name": "get_weather", "arguments": {"city": "Paris"}}, {"name": "get_weather", "arguments": {}}]', "", [CITY, {}]),
    ("xlam", '[{"name": "no such tool", "arguments": {}}]', '[{"name": "no such tool", "arguments": {}}]', []),
    ("llama-3", 'The JSON {"name": "get_weather", "parameters": {}}',
     'The JSON {"name": "get_weather", "parameters": {}}', []),
]  # fmt: skip
# What gpt-oss writes, its thought, its text, the arguments of each call.
GPT_OSS = [
    ("<|channel|>analysis<|message|>Need it.<|end|><|start|>assistant<|channel|>commentary to=functions.get_weather "
     '<|constrain|>json<|message|>{"city": "Paris"}<|call|>', "Need it.", "", [CITY]),
    ("<|channel|>analysis<|message|>Need it.<|end|><|start|>assistant to=functions.get_weather<|channel|>commentary json<|message|>"
     '{"city": "Paris"}<|call|>', "Need it.", "", [CITY]),
    ("<|channel|>analysis<|message|>A.<|end|><|start|>assistant<|channel|>analysis<|message|>B.<|end|><|start|>assistant"
     "<|channel|>commentary<|message|>I look.<|end|><|start|>assistant<|channel|>commentary to=functions.get_weather "
     "<|constrain|>json<|message|>{}<|call|><|start|>assistant<|channel|>commentary to=functions.get_weather "
     '<|constrain|>json<|message|>{"city": "Paris"}<|call|>', "A.\nB.", "I look.", [{}, CITY]),
    ("<|channel|>analysis<|message|>A.<|end|><|start|>assistant<|channel|>commentary<|message|>I look.<|end|><|start|>assistant"
     "<|channel|>analysis<|message|>B.<|end|><|start|>assistant<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>"
     '{"city": "Paris"}<|call|>', "A.\nB.", "I look.", [CITY]),
    ("<|channel|>commentary<|message|>I look.<|end|><|start|>assistant<|channel|>analysis<|message|>B.<|end|><|start|>assistant"
     "<|channel|>final<|message|>Paris.", "B.", "I look.\nParis.", []),
    ("<|channel|>final<|message|>Paris.", "", "Paris.", []),
    ('<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>{"city": "Paris"}<|call|>', "", "", [CITY]),
]  # fmt: skip
