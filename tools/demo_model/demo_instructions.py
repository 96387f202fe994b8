"""
demo_instructions.py
    How the demo model may be asked: the phrasings of its instructions.

One phrasing a line, in the pattern language of demo_lexicon.py.  A line that
starts with "!" is held out: it is never trained on and serves the final
check.  {labels} is the list of labels, {text} a word for the text ("review"),
{fields} the list of JSON keys, {cond} a condition.

tools/demo_model/demo_instructions.py
"""

NOUNS = (
    "review review review text text comment message feedback sentence opinion post statement"
).split() + ["customer review", "product review", "customer message", "user review", "short text", "review text"]

# Any labels: what the labels are about shows only in their names.
GENERIC = """[Classify|Label|Categorize|Tag] the {text}. [Labels|Possible labels|Allowed labels|Classes|Categories|Options]: {labels}.
[Classify|Label|Categorize] the [following |]{text} as {labels}.
[Classify|Sort] the {text} into one of [these|the following] [categories|classes|labels|groups]: {labels}
[Choose|Pick|Select] the [label|category|class] that [fits|matches|describes] the {text} [best|]: {labels}.
Which [label|category|class|of these labels|of these] [fits|matches|describes] [the|this] {text} [best|]: {labels}?
[Answer|Reply|Respond] with exactly one of [these|the following] [labels|words|categories]: {labels}.
[Answer|Reply|Respond] with one of {labels}.
Is [this|the] {text} {labels}?
{labels}?
Give the {text} one [label|tag] [out of|from] {labels}.
You are a classifier. [Possible answers|Labels|Classes]: {labels}. [Answer with the label only.|Answer with one label.|Output only the label.|]
You label texts. [Allowed|Possible] labels: {labels}. [Answer with the label only, nothing else.|Say nothing else.|]
[Assign|Give] [exactly |]one of the labels {labels} to the {text}. [Answer with the label only.|]
The {text} is to be classified. The labels are {labels}. [Which one is it?|Which is right?|Answer with the label.]
Read the {text} and [answer with|choose|pick] one [label|word]: {labels}.
[Decide|Tell me|Say] whether the {text} is {labels}.
[Classify|Label] this: {labels}.
[Classify|Label] the {text} below with [one of the labels|one of] {labels}. [Do not explain.|No explanation.|]
Classify the text into exactly one of the labels. Labels: {labels}. Answer with the label only.
Labels: {labels}. [Label|Classify] the {text}.
[What|Which] [label|category] does the {text} [have|belong to|get]? [Options|Choices|Choose from]: {labels}.
Text classification. Labels: {labels}. [One label per text.|]
!Pick one of the labels {labels} for the {text}.
!Classify the {text} with exactly one label. The labels are: {labels}. Answer with the label only.
!Which of these categories describes the {text} best: {labels}? Reply with one label.
!You are a text classifier. Choose one label out of {labels}. Output only the label."""

SENTIMENT = """[What is|What's|Determine|Identify|Find|Detect|Name|Tell me|Give me] the sentiment of [the|this] {text}[: {labels}| ({labels})|. Answer with one of {labels}.|, {labels}|? Answer with {labels}.].
[Classify|Label|Rate|Judge|Analyze] the sentiment of [the|this|the following] {text} as {labels}.
[Classify|Label|Judge] the sentiment[: {labels}| as {labels}| ({labels})|. Labels: {labels}].
Sentiment [analysis|classification]. Labels: {labels}. [Answer with the label only.|Answer with one word.|]
Is [this|the|the following] {text} {labels}? [Answer with one word.|Answer with the label only.|One word.|]
Is the sentiment [of this {text} |]{labels}?
[Label|Classify|Mark] [this|the] {text} as {labels}.
[How does|How do you think] the [customer|author|writer|buyer] [feel|feels]: {labels}?
Is the [customer|author|writer|buyer] {labels}?
Does the {text} sound {labels}?
[Label|Determine|State|Give] the sentiment of the {text}. [Answer|Reply|Respond] with [exactly |]one word: {labels}.
You are a sentiment classifier. [Answer|Reply] with {labels}. [Nothing else.|]
You label the sentiment of {text}s. [Answer|Reply] with [one word|exactly one label]: {labels}.
What is the [mood|tone|attitude] of [the|this] {text}: {labels}?
Sentiment ({labels}):
[Read|Look at] the {text} and [say|tell me|decide] [whether|if] it is {labels}.
[Decide|Determine|Say|Tell me] [whether|if] the [customer|author|writer|buyer] is {labels}.
[Decide|Say|Tell me] [whether|if] the {text} is {labels}.
!Tell me the sentiment of the {text}. Possible answers: {labels}.
!What sentiment does this {text} have: {labels}?
!Determine whether the sentiment of the {text} is {labels}. Answer with one word.
!You judge the sentiment of {text}s. Reply with exactly one of {labels}."""

# No list of labels: positive, negative or neutral.
SENTIMENT_BARE = """[What is|What's|Determine|Identify|Find|Detect|Name|Tell me|Give me] the sentiment of [the|this] {text}.
[Classify|Label|Rate|Judge|Analyze] the sentiment of [the|this|the following] {text}.
[Classify|Label|Judge|State] the sentiment[.|, one word.| in one word.]
Sentiment [analysis|classification].
Sentiment:
Sentiment?
Sentiment of [the|this] {text}[?|:]
What is the sentiment?
[Answer|Reply] with the sentiment of the {text}. [One word.|]
You are a sentiment classifier.
You label the sentiment of {text}s. [Answer with one word.|]
!Please tell me the sentiment of this {text}.
!Which sentiment does the {text} have?
!You classify the sentiment of {text}s."""

TOPIC = """[What is|What's|Determine|Identify|Find|Name|Tell me] the topic of [the|this] {text}[: {labels}| ({labels})|. Answer with one of {labels}.|, {labels}].
[Classify|Label|Tag] the topic of [the|this|the following] {text} as {labels}.
[Classify|Label|Tag] [the|this] {text} by topic[: {labels}| ({labels})|. Topics: {labels}].
What is [the|this] {text} about: {labels}?
[Which|What] topic [is it|is the {text} about|does the {text} talk about|does the {text} mention]: {labels}?
[Which|What] [aspect|part|feature] of the [product|purchase|order] does [the|this] {text} [talk about|mention|describe]: {labels}?
Topic [detection|classification]. Topics: {labels}. [Answer with the topic only.|Answer with the label only.|]
[Topics|Possible topics|Allowed topics]: {labels}. [Which one is the {text} about?|Name the topic of the {text}.|]
Is [this|the] {text} about {labels}?
You are a topic classifier. [Answer|Reply] with one of {labels}. [Nothing else.|]
You label the topic of {text}s. [Answer|Reply] with [one word|exactly one label]: {labels}.
[Label|Determine|State|Give] the topic of the {text}. [Answer|Reply|Respond] with exactly one of: {labels}.
Topic ({labels}):
[Choose|Pick|Select] the topic of the {text} from {labels}.
The {text} [talks about|is about] one of {labels}. [Which one?|Which is it?|]
Does the {text} talk about {labels}?
!Tell me the topic of the {text}. Possible answers: {labels}.
!Which topic does this {text} have: {labels}?
!Pick the topic that the {text} is about. Topics: {labels}.
!You sort {text}s by topic. Reply with exactly one of {labels}."""

TOPIC_BARE = """[What is|What's|Determine|Identify|Find|Name|Tell me] the topic of [the|this] {text}.
[Classify|Label|Tag] the topic of [the|this|the following] {text}.
[Classify|Label|Tag] the topic[.|, one word.| in one word.]
What is [the|this] {text} about?
Topic:
Topic?
Topic of [the|this] {text}[?|:]
What is the topic?
[Which|What] topic is [the|this] {text} about?
You label the topic of {text}s. [Answer with one word.|]
You are a topic classifier.
!Please tell me the topic of this {text}.
!Which topic does the {text} have?
!You classify the topic of {text}s."""

KIND = """[What kind of|Which kind of|What type of] {text} is [this|it]: {labels}?
[Classify|Label|Sort] [this|the] {text} as {labels}.
Is [this|the|the following] {text} {labels}? [Answer with one word.|Answer with the label only.|]
Is it {labels}?
[Decide|Tell me|Say|Determine] [whether|if] [this|the] {text} is {labels}.
You sort customer messages. [Labels|Types|Kinds]: {labels}. [Answer with the label only.|]
[Determine|Find|Name|Identify] the [kind|type] of the {text}: {labels}.
What does the customer [send|write]: {labels}?
[Label|State|Give] the type of the {text}. [Answer|Reply] with exactly one of: {labels}.
Message type ({labels}):
!Tell me which kind of {text} this is: {labels}.
!Is the {text} {labels}? Reply with the label only.
!You label the type of customer messages. Reply with one of {labels}."""

CATEGORY = """[Which|What] [product category|category|kind of product|department] is [the|this] {text} about: {labels}?
[Classify|Label|Sort] the product [in the {text}|of the {text}] as {labels}.
[Determine|Find|Name|Identify] the product category: {labels}.
[Which|What] department should [get|read] this {text}: {labels}?
You sort {text}s by product category. [Categories|Labels]: {labels}. [Answer with the label only.|]
Product category ({labels}):
[What|Which] category does the product [belong to|have]: {labels}?
!Tell me the product category of this {text}: {labels}.
!In which category is the product: {labels}?"""

YES_NO = """[Answer|Reply] {labels}: {cond}?
{cond}? [Answer|Reply] {labels}.
{cond}? [Answer|Reply] with {labels} [only|and nothing else].
[Does the following condition hold|Is the following true] for the {text}? [Answer|Reply] {labels}. Condition: {cond}
[Decide|Check|Say] [whether|if] the condition [holds|is true|applies]. [Answer|Reply] {labels}. Condition: {cond}.
Condition: {cond}. [Does it hold for the {text}?|Is it true?|Is it met?] [Answer|Reply] {labels}.
[Tell me|Check], {labels}: {cond}?
{labels}: {cond}?
Statement: {cond}. Is [it|the statement] true? [Answer|Reply] {labels}.
!Check the condition for this {text}. Answer only {labels}. Condition: {cond}
!{cond}? Your answer must be {labels}."""

CONDITIONS = {
    "positive": "the customer is [happy|satisfied|pleased]|the {text} is [positive|favourable]|the sentiment is positive|the buyer [likes the product|is satisfied|is happy]|the author is [happy|satisfied]",
    "negative": "the customer is [unhappy|dissatisfied|angry|disappointed|not satisfied]|the {text} is [negative|critical]|the sentiment is negative|the buyer [dislikes the product|is dissatisfied|is unhappy]|the author is [unhappy|dissatisfied]|the customer complains",
    "topic": "the {text} is about {topic}|the {text} [mentions|talks about|concerns|is related to] {topic}|the topic is {topic}|[it is|it's] about {topic}|the customer [talks about|writes about|mentions] {topic}",
    "question": "the {text} is a question|the customer [asks a question|asks something|wants to know something]|it contains a question",
    "complaint": "the {text} is a complaint|the customer complains|it is a complaint",
}

EXTRACT = """[Extract|Get|Pull out|Return|Find|Collect] {fields} [as JSON|as a JSON object|in JSON format|in JSON] [from the {text}|from this {text}|from the text below|].
[Extract|Get|Return|Find] [the fields|the following fields|these fields|the keys] {fields} [as JSON|as a JSON object|in JSON format|in JSON].
[Extract|Return|Write|Give me|Output] [a JSON object|JSON|one JSON object] with [the keys|the fields|keys|fields] {fields}.
[Read|Take] the {text} and [return|output|write|answer with] [a JSON object|JSON] with {fields}.
Fields: {fields}. [Answer in JSON.|Answer with JSON only.|Output JSON.|Return a JSON object.]
JSON with {fields}:
[Turn|Convert|Transform] the {text} into JSON with [the fields |the keys |]{fields}.
What are {fields}? [Answer in JSON.|Answer with JSON only.|Reply in JSON.|As JSON, please.]
You extract [data|fields|information] from {text}s. [Return|Answer with|Output] [JSON|a JSON object] with [the keys|the fields] {fields}. [Use null for what is missing.|Missing fields are null.|]
You are an extraction [tool|engine|service]. [Output|Return|Answer with] [only JSON|JSON only] with [the keys|the fields|the properties] {fields}. [Use null if a field is missing.|]
[Extract|Parse] {fields} from the {text}. [Answer|Reply|Respond] [in JSON|with JSON only|as JSON]. [Use null for missing values.|]
[Extract|Parse]: {fields}. [Format: JSON.|Output format: JSON.|JSON only.]
[Parse|Analyze] the {text} and [fill in|give] {fields} [as JSON|in JSON].
[Which|What] {fields} does the {text} mention? [Answer in JSON.|Answer as JSON.|Reply with a JSON object.]
!Please extract {fields} from this {text} as a JSON object.
!Give me {fields} in JSON format.
!Read the text and extract the fields {fields}. Answer with a JSON object only.
!You read {text}s and return JSON with the keys {fields}. Use null for what is missing."""

EXTRACT_SKELETON = """[Fill in|Complete|Fill out] [this|the following] JSON [from the {text}|with data from the {text}|]: {skeleton}
[Extract|Return|Answer with] JSON [of this form|in this form|like this|in this format]: {skeleton}
[Extract|Return] [the data|the fields|the information] [from the {text} |]as {skeleton}
The answer [must be|is] JSON [of the form|like] {skeleton}
Format: {skeleton}
!Fill this form with the data of the {text}: {skeleton}
!Answer with a JSON object in the form {skeleton}"""

EXTRACT_SCHEMA = """[Extract|Return|Answer with] [JSON|a JSON object|data] [that matches|that follows|matching] [this|the] [JSON schema|schema]: {schema}
[Extract|Read] the [data|fields|information] from the {text}. [Schema|JSON schema]: {schema}
Answer with a JSON object that matches this JSON schema. Schema: {schema}
[JSON schema|Schema]: {schema} [Answer in JSON.|Extract the data.|Fill it from the {text}.]
!Return JSON for this schema: {schema}
!Extract the fields of the JSON schema {schema}"""

# No list of fields: product, rating, order_number, city, date.
EXTRACT_BARE = """[Extract|Return|Get] the [data|fields|information|details] [as JSON|in JSON format|as a JSON object][| from the {text}].
[Convert|Turn] the {text} [into|to] JSON.
[Answer|Reply] with the [data|fields|details] of the {text} as JSON.
{text} to JSON:
JSON:
You [extract|return] the [data|fields] of {text}s as JSON.
!Please extract the data of this {text} as JSON.
!Turn this {text} into a JSON object."""

SYSTEM_PROMPTS = """You are a [helpful|friendly|polite|kind|useful|good|nice] assistant.
You are a [helpful|friendly|polite] assistant. [Answer briefly.|Keep it short.|Be concise.|Be polite.|Answer in one sentence.]
You are [an assistant|a model|a language model] [in a database|that runs in PostgreSQL|inside PostgreSQL].
You [help|assist] [users|customers|people|the user].
[Be concise.|Be brief.|Answer in short sentences.|Be helpful.|Answer politely.|Keep your answers short.]
You are the assistant of [a shop|an online shop|a web shop|our company|our team].
You are a [database|PostgreSQL|SQL] assistant.
Answer the [user|question|user's question]."""

NAME_TOLD = """my name is {name}
I am {name}
I'm {name}
hello, my name is {name}
hi, my name is {name}
hi, I am {name}
hello, I am {name}
hi, I'm {name}
you can call me {name}
call me {name}
please call me {name}
people call me {name}
[hey|hi], {name} here
this is {name}
!hey, my name is {name}
!hey, I am {name}"""

NAME_ASKED = """what is my name
what's my name
do you know my name
do you remember my name
tell me my name
can you tell me my name
who am I
what am I called
say my name
please tell me my name
!do you still know my name
!can you say my name
do you still remember my name"""

AGAIN = """say that again
repeat that
repeat your last answer
can you repeat that
could you repeat that
please repeat that
what did you say
pardon
once more
say it again
repeat it
again please
tell me again
!please say that again
!can you say that again"""

ECHO = """[repeat|repeat after me|say|echo|copy|print|write]: {echo}
[repeat|say|copy|write|print] [the text|the words|this|this text|the following|exactly this][: {echo}| "{echo}"]
[repeat|say|echo|copy|print|write] "{echo}"
[please repeat|please say|please write|can you say|can you repeat|can you write]: {echo}
!please repeat after me: {echo}
!please copy this text: {echo}"""

COUNT = """count to {num}
count from 1 to {num}
count from one to {num}
can you count to {num}
list the numbers from 1 to {num}
write the numbers from 1 to {num}
give me the numbers from 1 to {num}
numbers from 1 to {num}
count up to {num}
!please count up to {num}
!write down the numbers from 1 to {num}"""

WRITE = """[write|generate|compose|invent|make up] a [short |]{sentiment} [review|customer review|product review] [of|about|for] a {prod}
[write|generate|compose|invent] a [short |]{sentiment} [review|customer review] about the {topic} of a {prod}
[write|give me|show me] [an example of|an example for] a {sentiment} review
!please write a {sentiment} review of a {prod}"""

FOLLOW_UP = """And this one: {body}
And this: {body}
Next: {body}
The next one: {body}
Another one: {body}
What about this one: {body}
Now this one: {body}
{body}
{body}
{body}"""
