"""
demo_lexicon.py
    The words and sentence patterns from which the demo model's text is made.

A pattern is a string with two kinds of holes: [a|b|c] picks one of the
alternatives (which may hold {slots} but no brackets), {slot} is filled from
SLOTS or by the caller.  Opinions are kept by topic and by sentiment, so that
every generated text knows its own labels.

tools/demo_model/demo_lexicon.py
"""

# What a topic may be called in a list of labels; the first is its usual name.
TOPIC_NAMES = {
    "delivery": ["delivery", "shipping", "delivery time", "transport"],
    "price": ["price", "cost", "pricing", "value for money"],
    "quality": ["quality", "build quality", "material", "durability"],
    "service": ["service", "customer service", "support", "staff"],
    "size": ["size", "fit", "dimensions", "sizing"],
    "battery": ["battery", "battery life", "power", "charging"],
    "design": ["design", "look", "appearance", "style"],
    "comfort": ["comfort", "comfortable", "ergonomics", "wearing comfort"],
    "sound": ["sound", "sound quality", "audio", "noise"],
    "software": ["software", "app", "firmware", "user interface"],
    "packaging": ["packaging", "package", "box", "wrapping"],
    "taste": ["taste", "flavour", "flavor", "food"],
}

SENTIMENT_NAMES = {
    "positive": ["positive", "good", "happy", "satisfied"],
    "negative": ["negative", "bad", "unhappy", "dissatisfied"],
    "neutral": ["neutral", "neutral", "indifferent", "neither"],
    "mixed": ["mixed", "mixed", "both", "mixed"],
}

KIND_NAMES = {
    "praise": ["praise", "compliment", "positive feedback", "thanks"],
    "complaint": ["complaint", "problem", "negative feedback", "criticism"],
    "question": ["question", "inquiry", "question", "enquiry"],
    "suggestion": ["suggestion", "feature request", "idea", "wish"],
}

PRODUCTS = {
    "electronics": (
        "phone|laptop|tablet|speaker|camera|smartwatch|headset|keyboard|monitor|router|printer|television|"
        "radio|drone|charger|mouse|game console|projector|microphone|e-reader|earbuds|power bank|"
        "robot vacuum|electric toothbrush|hair dryer|webcam|hard drive|headphones|graphics card|"
        "fitness tracker|soundbar|cordless drill"
    ).split("|"),
    "kitchen": (
        "kettle|toaster|blender|frying pan|coffee maker|knife set|mixer|microwave|rice cooker|teapot|mug|"
        "cutting board|espresso machine|food processor|saucepan|dishwasher|fridge|oven|salad bowl|"
        "water bottle|lunch box|wine glass|baking tray|juicer|waffle iron|coffee grinder"
    ).split("|"),
    "clothing": (
        "jacket|shirt|dress|sweater|coat|jeans|skirt|scarf|hat|t-shirt|hoodie|raincoat|belt|socks|boots|"
        "sneakers|sandals|gloves|suit|tie|pyjamas|running shoes|trousers|blouse|cap|cardigan|leggings|"
        "swimsuit|slippers|vest"
    ).split("|"),
    "furniture": (
        "chair|desk|sofa|lamp|bookshelf|mattress|table|wardrobe|armchair|mirror|rug|bed frame|pillow|"
        "curtain|stool|cabinet|bench|nightstand|office chair|coffee table|blanket|dining table|shelf|"
        "garden chair|footrest|drawer"
    ).split("|"),
    "food": (
        "coffee|tea|chocolate|honey|olive oil|pasta|cookies|cheese|jam|muesli|orange juice|pizza|soup|"
        "granola|protein bar|ice cream|bread|sauce|almonds|biscuits|rice|peanut butter|crisps|lemonade|"
        "cake|noodles|yogurt|curry|snack box|dried fruit"
    ).split("|"),
    "toys": (
        "puzzle|teddy bear|board game|doll|toy train|kite|building blocks|toy car|card game|yo-yo|"
        "dollhouse|water pistol|model plane|play tent|rocking horse|stuffed rabbit|toy robot|toy kitchen|"
        "marble run|jigsaw|scooter|bath duck|toy piano|play dough"
    ).split("|"),
}

CATEGORY_NAMES = {
    "electronics": ["electronics", "technology", "devices", "tech"],
    "kitchen": ["kitchen", "cooking", "kitchenware", "kitchen"],
    "clothing": ["clothing", "fashion", "clothes", "apparel"],
    "furniture": ["furniture", "home", "living", "furnishing"],
    "food": ["food", "groceries", "food and drink", "grocery"],
    "toys": ["toys", "games", "kids", "toys and games"],
}

TOPIC_CLASSES = {
    "battery": ["electronics"],
    "sound": ["electronics"],
    "software": ["electronics"],
    "taste": ["food"],
    "comfort": ["clothing", "furniture"],
    "size": ["clothing", "furniture", "kitchen", "toys", "electronics"],
    "design": ["clothing", "furniture", "kitchen", "toys", "electronics"],
    "quality": ["clothing", "furniture", "kitchen", "toys", "electronics"],
}

SLOTS = {
    "n": [str(i) for i in range(2, 15)] + "two three four five six seven eight ten twelve".split(),
    "big": [str(i) for i in range(20, 400, 5)],
    "pct": [str(i) for i in range(10, 95, 5)],
    "amount": [f"{s}{i}" for s in ("$", "£", "€") for i in range(5, 400, 5)] + [f"{i} euros" for i in range(5, 300, 5)]
    + [f"{i} dollars" for i in range(5, 300, 5)] + [f"{i}.99" for i in range(5, 90, 4)],
    "unit": ["hours", "days", "weeks"],
    "later": "after a day|after two days|after one week|after {n} days|after {n} weeks|after a month|within a week|"
    "after only {n} uses|the first time I used it|on the first day|almost immediately|right away|in no time|"
    "after a few washes|within hours".split("|"),
    "rel": "wife|husband|son|daughter|mother|father|sister|brother|friend|boss|colleague|neighbour|grandmother|"
    "girlfriend|boyfriend|partner|team|office|kitchen|nephew|mum|dad|niece|parents".split("|"),
    "day": "Monday|Tuesday|Wednesday|Thursday|Friday|Saturday|Sunday".split("|"),
    "month": "January|February|March|April|May|June|July|August|September|October|November|December".split("|"),
    "very": "very|really|so|extremely|absolutely|truly|simply|incredibly|just|pretty|quite|totally".split("|"),
    "colour": "black|white|red|blue|green|grey|silver|yellow|pink|brown".split("|"),
}

# Adjectives that carry a sentiment about anything.
ADJECTIVES = {
    "positive": (
        "great|excellent|fantastic|amazing|wonderful|superb|brilliant|perfect|good|very good|really nice|outstanding|"
        "awesome|impressive|first-class|top-notch|lovely|terrific|flawless|exceptional|incredible|fabulous|marvelous|"
        "better than expected|beyond my expectations|not bad at all|second to none|a real pleasure|delightful|"
        "simply the best|the best I have ever seen|far above average|splendid|a dream|stunning|remarkable|superior|"
        "a pleasant surprise|pleasing|phenomenal|spot on|ideal|just what I wanted|everything I hoped for|nice|"
        "extremely good|so good|better than ever|absolutely fine with me|worth five stars"
    ).split("|"),
    "negative": (
        "terrible|awful|horrible|bad|very bad|poor|very poor|disappointing|dreadful|unacceptable|a disaster|a joke|"
        "a disgrace|pathetic|the worst|useless|a nightmare|lousy|appalling|subpar|frustrating|shameful|abysmal|"
        "worse than expected|far below expectations|a let-down|not good|not good at all|not acceptable|inferior|"
        "a big disappointment|a complete failure|annoying|ridiculous|horrendous|a scandal|really bad|so bad|"
        "the worst I have ever seen|nothing like promised|an absolute mess|disgusting|atrocious|laughable|"
        "not what I paid for|inadequate|deplorable|a total flop|miserable|hopeless|worth one star at most"
    ).split("|"),
    "neutral": (
        "average|okay|ordinary|standard|as described|as expected|nothing special|acceptable|neither good nor bad|"
        "normal|so-so|typical|unremarkable|the usual|about average|ok|nothing out of the ordinary|"
        "what you would expect|the same as before|comparable to others|medium|not good and not bad|"
        "in line with the description|like any other|just okay|neither great nor terrible"
    ).split("|"),
}

# Opinions about the whole product; they say nothing about a topic.
GENERAL = {
    "positive": (
        "I [love|adore|really like|am very happy with|am thrilled with|am delighted with|am so pleased with] [it|this {prod}|my new {prod}]\n"
        "[Highly|Warmly|Definitely|Strongly] recommended[| to everyone]\n"
        "[I|We|I would|We would] [definitely|certainly|gladly|happily] [buy it again|order it again|recommend it]\n"
        "[Best|The best|Easily the best] {prod} I [have ever owned|ever had|ever bought|have used in years]\n"
        "My {rel} [loves it|is very happy with it|is delighted|adores it|could not be happier|uses it every day with joy]\n"
        "[Could not be happier|Very happy|Very satisfied|So pleased|Extremely satisfied|More than happy] [with it|with this purchase|overall|with my {prod}]\n"
        "[It|This {prod}] [works perfectly|works like a charm|does exactly what I need|exceeded my expectations|made my day|makes me smile every day]\n"
        "[Five stars|5 stars|Full marks|All five stars][| from me|, well deserved| without hesitation]\n"
        "[A wonderful|An excellent|A great|A fantastic|A perfect|A superb|An amazing|A brilliant] {prod}\n"
        "[Nothing to complain about|No complaints at all|No complaints|I have nothing bad to say]\n"
        "[Thank you|Thanks] for [this wonderful|such a great|the excellent|this fantastic] {prod}\n"
        "I am [very|really|completely|more than] [happy|satisfied|pleased|content|impressed]\n"
        "[Great|Excellent|Fantastic|Wonderful|Perfect|Superb|Brilliant|Lovely] [product|purchase|{prod}|choice]\n"
        "It [never|has never] [let me down|disappointed me|failed me]\n"
        "[Everything|It all] [works great|is perfect|went smoothly|was perfect]\n"
        "I [can't stop using it|use it every day and enjoy it|enjoy it a lot|would not want to miss it]\n"
        "[Exactly|Just] what [I needed|I wanted|I was looking for|we needed]\n"
        "[So glad|Glad|Very glad|Happy] [that I bought it|I bought it|that I found this {prod}|we chose this {prod}]\n"
        "[Thumbs up|Ten out of ten|10 out of 10|Two thumbs up|Wow, just wow|Love it|Would buy again|A keeper]\n"
        "My {rel} [plays with it every day|uses it all the time|wants one too|enjoys it very much|never wants to be without it]\n"
        "[It|This {prod}] [makes life easier|is so much fun|is worth it|is a keeper|is a joy to use|changed my life]\n"
        "[Everything|All of it] [is great|is just right|came together well|is as good as promised|works]"
    ),
    "negative": (
        "I [hate|regret buying|am very unhappy with|am really disappointed with|am fed up with|cannot stand] [it|this {prod}|my new {prod}]\n"
        "[Not recommended|I cannot recommend it|I do not recommend it|Would not recommend|Never again|Avoid it|Stay away|Do not buy it|Don't buy this]\n"
        "[I|We] will [never buy it again|not order again|send it back|return it|ask for a refund|never buy here again|complain]\n"
        "[Worst|The worst|Easily the worst] {prod} I [have ever owned|ever had|ever bought|have used in years]\n"
        "My {rel} [hates it|is very unhappy with it|is disappointed|was in tears|refuses to use it|sent it back]\n"
        "[Very unhappy|Very disappointed|Deeply disappointed|Extremely dissatisfied|So frustrated|Not happy] [with it|with this purchase|overall|with my {prod}]\n"
        "[It|This {prod}] [does not work|doesn't work at all|stopped working {later}|is good for nothing|let me down|failed {later}|is a complete waste]\n"
        "[One star|1 star|Zero stars|No stars] [from me|at most|and that is generous|and no more]\n"
        "[A terrible|An awful|A useless|A horrible|A dreadful|A really bad|A disappointing] {prod}\n"
        "I want [a refund|to return it|to send it back|a replacement]\n"
        "[What a disappointment|What a mess|What a shame|Such a letdown|Complete rubbish|Total garbage|Absolute junk]\n"
        "I am [very|really|completely|deeply] [unhappy|dissatisfied|disappointed|annoyed|angry|upset|frustrated]\n"
        "[Terrible|Awful|Horrible|Useless|Bad|Disappointing|Dreadful] [product|purchase|{prod}|choice]\n"
        "It [always|constantly|often] [lets me down|fails|annoys me|breaks]\n"
        "It keeps [failing|breaking|stopping]\n"
        "[Nothing|None of it] [works|is as promised|went right|was right]\n"
        "[Not what I expected|I expected more|I expected much more|Not as promised|Far from what was promised]\n"
        "[Thumbs down|Two thumbs down|Look elsewhere|Would not buy again|Save yourself the trouble|What a waste|Hate it]\n"
        "[It|This {prod}] [went straight into the bin|never worked|is missing parts|is broken|was broken from day one|arrived broken|is worthless]\n"
        "I am [so angry|returning it|sending it back|sorry I bought it|done with this {prod}]\n"
        "[My {rel}|Everyone here|We all] [complained about it|complains about it every day|regrets it|wants the money back]\n"
        "I [gave up {later}|threw it away {later}|would give zero stars if I could|wish I had never bought it]"
    ),
    "neutral": (
        "[It|This {prod}] [is okay|is average|does its job|does what it says|is as described|is an ordinary {prod}|is nothing special]\n"
        "I [use it|have used it] [now and then|once a week|sometimes|for {n} weeks|since {month}]\n"
        "[Neither good nor bad|Not good, not bad|Nothing more, nothing less|Just a normal {prod}|An average {prod}]\n"
        "[No opinion yet|I have not tested it yet|I cannot say much about it yet|Still testing|I have not made up my mind]\n"
        "My {rel} has [one too|the same one|a similar one|used it once]\n"
        "[Three|3] [stars|out of five][| from me|, nothing more to say]\n"
        "[It|The {prod}] is [what you would expect|like any other {prod}|the same as my old one|a standard model]\n"
        "I [have no strong feelings about it|have no particular opinion|can take it or leave it]\n"
        "[It|This] is [a {colour} {prod}|a {prod}|a {prod} for my {rel}|my {rel}'s {prod}]\n"
        "[It|The {prod}] [is fine|is fine I guess|does the job|is so-so|is usable|is acceptable]\n"
        "[Meh|Fine I guess|It's fine|It's ok|Does the job|So far nothing to report|Works as described|Not much to say]\n"
        "[It|This {prod}] is for my {rel}"
    ),
}

# Sentences around the opinion that carry no sentiment and no topic.
FILLERS = (
    "I bought this {prod} [for my {rel}|last {month}|last {day}|in {month}|a week ago|{n} weeks ago|as a gift|online]\n"
    "[Bought|Ordered|Got] [this|the] {prod} [for my {rel}|last {month}|{n} weeks ago|as a gift|on {day}]\n"
    "My {rel} [ordered|wanted|needed|bought|asked for] a new {prod}\n"
    "[We|I] [needed|wanted] a {prod} for [my {rel}|the office|a trip|the holidays|our new flat|the weekend]\n"
    "This is my [first|second|third] {prod}\n"
    "I [have had|have owned|have been using] the {prod} for {n} [weeks|months|days]\n"
    "It was a [gift|birthday present|Christmas present] for my {rel}\n"
    "[About|Regarding] the {colour} {prod} I [ordered|bought][| on {day}| in {month}]\n"
    "The {prod} is [for my {rel}|a present|for the {rel}]"
).split("\n")

# topic -> adj (noun phrases that take an adjective), and patterns by sentiment,
# plus questions and suggestions.
TOPICS = {
    "delivery": {
        "adj": "the delivery|shipping|the delivery time|the courier service|the shipping|the transport|delivery",
        "positive": (
            "[The delivery|Shipping|Delivery] was [{very} |]fast\n"
            "[The parcel|My order|The package|It] [arrived|came|was delivered] [{n} days early|a day early|earlier than promised|ahead of schedule|the very next day|within 24 hours|overnight|super quickly|in no time|right on time|exactly on time]\n"
            "[Quick|Fast|Speedy|Lightning-fast|Prompt|Super fast|Punctual] [delivery|shipping]\n"
            "[The courier|The driver|The delivery man|The postman] was [{very} |][friendly|polite|careful|helpful|on time|punctual]\n"
            "[Delivered|Shipped] [in just {n} days|the same day|within hours|faster than expected|without any problems]\n"
            "I ordered it on {day} and [had it the next day|it was here the next morning]\n"
            "The tracking [worked perfectly|was always up to date and accurate]"
        ),
        "negative": (
            "[The delivery|Shipping|Delivery] was [{very} |][slow|late|delayed]\n"
            "[The parcel|My order|The package|It] [arrived|came|was delivered] [{n} days late|a week late|{n} weeks late|far too late|much later than promised|after the birthday|at the wrong address]\n"
            "[The parcel|My order|The package] [never arrived|was lost|got lost in the mail|still has not arrived|is still missing|did not show up|has been stuck in customs for {n} weeks]\n"
            "[Slow|Late|Terribly slow|Delayed|Endlessly slow] [delivery|shipping]\n"
            "[The courier|The driver|The delivery man|The postman] [was rude|threw the parcel over the fence|left it in the rain|never rang the bell|went to the wrong house|left the parcel outside]\n"
            "I [waited|had to wait|have been waiting] {n} weeks for [my order|the parcel|the delivery]\n"
            "[Shipping|Delivery] took [forever|ages|far too long|{n} weeks|over a month|an eternity]\n"
            "The tracking [never worked|was wrong all the time|showed nothing for {n} days]"
        ),
        "neutral": (
            "[The parcel|My order|The package|It] [arrived|came|was delivered] [after {n} days|on {day}|by post|within the stated time|by courier]\n"
            "[Delivery|Shipping] [takes|took] [about|around] {n} days\n"
            "[The courier|The driver] [came|rang] on {day}\n"
            "It was shipped from the warehouse on {day}"
        ),
        "question": "[How long does|How much time does] [delivery|shipping] [take|take to my town]\nWhen will my [order|parcel|package] [arrive|be shipped|be delivered]\nDo you [ship|deliver] to [Norway|Canada|islands|other countries|my country|Spain]\n[Where is|Can I track] my [parcel|package|order]\nCan [the courier|you] deliver on [{day}|weekends]",
        "suggestion": "[Please offer|You should offer|I would like to see|It would be nice to have] [delivery on {day}|express shipping|a parcel tracking link|shipping to more countries]\nIt would [be great|help] if [the courier called first|I could choose a delivery day]",
    },
    "price": {
        "adj": "the price|the cost|the value for money|the pricing|the price-performance ratio",
        "positive": (
            "[The price|It|The cost] is [{very} |][fair|low|reasonable|affordable|hard to beat|unbeatable|very attractive]\n"
            "[Great|Excellent|Fantastic|Incredible|Very good|Superb] [value for money|price|deal|bargain|value]\n"
            "[Worth every penny|Worth every cent|Well worth the money|Well worth {amount}|A real bargain|An absolute steal|A bargain at {amount}|A steal at {amount}]\n"
            "[Cheaper than|Much cheaper than|Half the price of] [anywhere else|in the shops|the competition|other brands]\n"
            "I [saved|was able to save] {amount} [with the discount|compared to the shop|in the sale]\n"
            "[Only|Just] {amount}, [that is a great deal|what a bargain|you cannot beat that|so cheap]\n"
            "You get a lot for your money"
        ),
        "negative": (
            "[The price|It|The cost] is [{very} |][too high|unfair|excessive|outrageous|exorbitant|much too high]\n"
            "[Way too|Far too|Much too|Totally|Ridiculously|Terribly] [expensive|overpriced|pricey|costly]\n"
            "[Not worth the money|Not worth {amount}|A waste of money|A rip-off|A complete rip-off|Bad value for money|Poor value|Money down the drain]\n"
            "[Another shop|The competition|The shop next door|Everyone else] [sells it|has it] for [half|{amount} less|much less]\n"
            "{amount} [for this|for that] is [a joke|outrageous|far too much|robbery|simply too expensive]\n"
            "I [paid|was charged] {amount} [too much|more than advertised|twice]\n"
            "The price [went up|was raised] [{later}|by {pct} percent without warning]\n"
            "[Hidden fees|Extra charges] [made it expensive|added {amount} to the bill]"
        ),
        "neutral": (
            "[It|The {prod}] [costs|cost|cost me|is sold for] {amount}\n"
            "[The price|It] is [about the same as|similar to|comparable to] [other shops|the competition|other brands]\n"
            "I paid {amount} [for it|in the shop|online]\n"
            "The price [is average|has not changed|includes tax|is the usual one]"
        ),
        "question": "[How much does|What does] [it|this {prod}|the {prod}] cost\nIs there [a discount|a student discount|a cheaper version|a sale]\n[Does|Will] the price [include tax|go down in {month}]\nWhat is the price [of the {colour} one|for {n} pieces|in euros]\nCan I pay [in instalments|by invoice|later]",
        "suggestion": "[Please lower|You should lower|Consider lowering] the price\nIt would [be great|be nice|help] if [it were cheaper|there was a discount for students|the price was a bit lower]\n[Please offer|You should offer] [a discount for families|a cheaper version]",
    },
    "quality": {
        "adj": "the quality|the build quality|the workmanship|the material|the finish|the quality of the {prod}|the craftsmanship",
        "positive": (
            "[The material|It|The {prod}|The fabric] [feels|seems|is] [{very} |][sturdy|solid|durable|robust|well made|high-quality|premium|strong]\n"
            "[Very well made|Well built|Solidly built|Built to last|Made to last|Made with care]\n"
            "[It|The {prod}] [has survived many falls|is still like new after {n} years|will last for years|shows no wear after {n} months|is built like a tank|does not scratch easily]\n"
            "[Excellent|High|Top|Superb|Great|Premium] [quality|workmanship|build quality|materials]\n"
            "[The seams|The hinges|The stitching|The buttons|The screws] [are|look] [strong|perfect|very solid|clean and tight]"
        ),
        "negative": (
            "[The material|It|The {prod}|The fabric] [feels|seems|is] [{very} |][flimsy|cheaply made|fragile|shoddy|poorly made|low-quality|thin and weak|brittle]\n"
            "[It|The {prod}|The handle|The lid|The zipper|The hinge] [broke|fell apart|cracked|came off|snapped|tore|ripped|fell off] {later}\n"
            "[Poorly made|Badly made|Cheap plastic|Cheap material|Poor workmanship|Shoddy workmanship|Low quality|Poor quality]\n"
            "[The paint|The colour|The coating] [peeled off|faded|came off|flaked off] {later}\n"
            "[The seams|The hinges|The stitching|The buttons|The screws] [are loose|came apart|broke {later}|fell off {later}|were missing]\n"
            "[It|The {prod}] was [defective|faulty|scratched|broken|full of scratches|rusty] [out of the box|when I got it|{later}]"
        ),
        "neutral": (
            "[It|The {prod}|The housing] is made of [plastic|steel|cotton|wood|aluminium|glass|metal|wool]\n"
            "The quality is [average|okay|as expected|neither good nor bad|standard]\n"
            "[The material|The fabric] is [a cotton blend|the usual kind|standard plastic|not special]\n"
            "The build is like that of the old model"
        ),
        "question": "[What material|Which material] is [it|the {prod}] made of\nIs [it|the {prod}|the material] [waterproof|durable|scratch-resistant|washable|made of steel|real leather]\n[Does|Will] the [paint|coating|fabric|material] [fade|wear off|scratch easily]\n[Does|Will|Can] it hold up [with daily use|for years]",
        "suggestion": "[Please use|You should use|Consider using] [better materials|metal instead of plastic|stronger screws|thicker fabric]\nIt would [be great|be nice|help] if [the material was thicker|the hinges were stronger|it was made of steel]",
    },
    "service": {
        "adj": "the service|customer service|the support|the staff|the support team|the hotline|the customer support",
        "positive": (
            "[The staff|Customer service|The support team|The lady on the phone|The support agent|The seller] [was|were] [{very} |][friendly|helpful|kind|polite|patient|competent|professional|attentive]\n"
            "[The staff|Customer service|Support|The hotline|The seller] [answered within minutes|replied the same day|solved my problem at once|went out of their way to help|sorted it out quickly|helped me right away|refunded me immediately|sent a replacement at once]\n"
            "[Great|Excellent|Fantastic|Outstanding|Friendly|Helpful|Wonderful] [customer service|support|staff|service]\n"
            "They [replaced it|refunded me|fixed it] [without any questions|free of charge|with no fuss]\n"
            "I felt [well advised|in good hands|taken seriously] by [the staff|the support team]"
        ),
        "negative": (
            "[The staff|Customer service|The support team|The lady on the phone|The support agent|The seller] [was|were] [{very} |][rude|unhelpful|unfriendly|arrogant|incompetent|impolite|clueless]\n"
            "[The staff|Customer service|Support|The hotline|The seller] [never answered|ignored my emails|hung up on me|did not reply for {n} weeks|refused to help|refused a refund|could not help me|kept me on hold for {n} hours|never called back]\n"
            "[Terrible|Awful|Rude|Unhelpful|Horrible|Nonexistent|Poor] [customer service|support|staff|service]\n"
            "[Nobody|No one] [answers the phone|replies to emails|cares about customers|at the hotline could help]\n"
            "I [called|wrote to] [support|customer service|the hotline] {n} times [without an answer|for nothing|and nothing happened]\n"
            "They [refused to refund me|blamed me for the defect|would not take it back|ignored my complaint]"
        ),
        "neutral": (
            "[Customer service|The support team|The hotline] can be reached [by phone|by email|on weekdays|from nine to five]\n"
            "I [wrote to|called|contacted] [support|customer service|the hotline] on {day}\n"
            "[The staff|The support agent] [asked for my order number|sent a form to fill in|took down my details]\n"
            "The service was [average|okay|as expected|standard]"
        ),
        "question": "[How can I|Where can I] [reach|contact] [customer service|support|your staff|the hotline]\nWhat are the [opening hours|hours of the hotline]\nCan [someone|the support team|customer service] [call me back|help me|send me a form]\n[How do I|Where can I] [return it|ask for a refund|file a claim]\nWho can help me with [a return|a warranty claim|my account]",
        "suggestion": "[Please hire|You should hire|You need] more [support staff|people for the hotline]\nIt would [be great|help|be nice] if [support was open on weekends|the hotline was free|customer service had a chat]\n[Please offer|You should offer] support [by chat|on weekends|in more languages]",
    },
    "size": {
        "adj": "the size|the fit|the sizing|the dimensions|the length|the width",
        "positive": (
            "[It|The {prod}|The size] [fits perfectly|fits like a glove|fits just right|fits very well|is exactly the right size|is just the right size|is neither too big nor too small]\n"
            "[Perfect|Great|Excellent|Ideal] [fit|size|length|dimensions]\n"
            "[It|The {prod}] is [compact and fits everywhere|small enough for any bag|big enough for the whole family|roomy enough for everything|true to size, perfect]\n"
            "[The length|The width|The size] is [just right|perfect|ideal] [for me|for my {rel}|for our flat]\n"
            "Size {n} [fits me perfectly|is perfect for me]"
        ),
        "negative": (
            "[It|The {prod}|The size] is [way |far |much |{very} |][too small|too big|too large|too tight|too short|too long|too narrow|too wide|too loose]\n"
            "[It|The {prod}] does [not fit|not fit at all|not fit on my desk|not fit in the bag|not fit my {rel}]\n"
            "[The sizes|The sizing|The dimensions|The measurements] [run too small|run too large|are completely wrong|are wrong|are not as stated]\n"
            "I ordered [size {n}|a medium|a large|a small] and [it is far too small|it is far too big|it does not fit|got something tiny]\n"
            "[It|The {prod}] is [{n} centimetres|{n} inches] [shorter|longer|smaller|wider] than [stated|promised|advertised]\n"
            "[Wrong size|Bad fit|Terrible fit|Much smaller than in the picture]"
        ),
        "neutral": (
            "[It|The {prod}] is [about {big} centimetres|{big} cm|{n} inches|{big} millimetres] [long|wide|high|tall]\n"
            "I ordered [size {n}|a medium|a large|a small]\n"
            "[It|The {prod}] comes in [{n} sizes|one size|small, medium and large]\n"
            "The size is [as stated|average|standard|the usual one|as expected]"
        ),
        "question": "[What size|Which size] [should I order|is it|do I need|fits a child of {n}]\n[How|Exactly how] [big|long|wide|tall|large] is [it|the {prod}]\nWhat are the [dimensions|measurements] of the {prod}\n[Does|Will] [it|the {prod}] fit [on a small desk|in a backpack|a tall person|my {rel}]\nIs there a [larger|smaller|bigger] [size|version]",
        "suggestion": "[Please offer|You should offer|Please add] [more sizes|a larger size|a smaller version|half sizes|a size chart]\nIt would [be great|be nice|help] if [it were a bit bigger|it were smaller|there was a longer version]",
    },
    "battery": {
        "adj": "the battery|the battery life|battery life|the charging time|the battery of the {prod}",
        "positive": (
            "[The battery|Battery life|It] [lasts all day|lasts for {n} days|lasts the whole week|lasts forever|easily lasts {n} hours|still has {pct} percent in the evening|holds its charge for ages]\n"
            "[Great|Excellent|Fantastic|Amazing|Incredible|Superb] [battery life|battery|battery performance]\n"
            "[The battery|It] [charges in no time|charges very quickly|is full in {n} minutes|is fully charged in under an hour|recharges super fast]\n"
            "I [only charge it|only need to charge it|only plug it in] [once a week|every {n} days|once a month]\n"
            "The battery is [strong|powerful|long-lasting|reliable]"
        ),
        "negative": (
            "[The battery|Battery life|It] [dies after {n} hours|is empty after {n} minutes|is empty by noon|drains far too quickly|barely lasts {n} hours|does not hold a charge|runs out in no time|does not last a day|is dead {later}|is always empty]\n"
            "[Terrible|Awful|Poor|Bad|Miserable|Weak] [battery life|battery|battery performance]\n"
            "[The battery|It] [takes forever to charge|will not charge anymore|stopped charging {later}|gets dangerously hot while charging|takes {n} hours to charge, far too long|no longer charges]\n"
            "I have to [charge it|plug it in|recharge it] [twice a day|all the time|every {n} hours|constantly]\n"
            "[The charger|The charging cable|The charging port] [broke {later}|does not work|overheats|is loose]\n"
            "The battery [died|swelled up|gave up|failed] {later}"
        ),
        "neutral": (
            "[The battery|It] [has {big} mAh|is rated at {n} hours|lasts as long as stated|takes about {n} hours to charge|charges over USB]\n"
            "[The battery|It] can be [replaced|charged with a cable|charged in the car]\n"
            "Battery life is [average|okay|as stated|as expected|about {n} hours]\n"
            "I charge it [every night|every {n} days|on {day}]"
        ),
        "question": "[How long does|How many hours does] [the battery|it|a charge] last\nHow long does it take to [charge|charge the battery]\nCan the battery be [replaced|charged in the car|swapped]\nCan I [replace|swap|remove] the [battery|battery pack]\nIs [a charger|a battery|a charging cable] included\n[Does it|Can it] charge [over USB|wirelessly]",
        "suggestion": "[Please add|You should add|Please build in] [a bigger battery|fast charging|a battery indicator|wireless charging]\nIt would [be great|be nice|help] if [the battery lasted longer|the battery could be replaced|it charged faster]",
    },
    "design": {
        "adj": "the design|the look|the style|the colour|the appearance|the design of the {prod}|the shape",
        "positive": (
            "[It|The {prod}] looks [{very} |][beautiful|elegant|stylish|gorgeous|modern|stunning|great in our home|lovely|chic|classy]\n"
            "[Beautiful|Elegant|Gorgeous|Stunning|Stylish|Sleek|Lovely] [design|look|colour|style|shape]\n"
            "[The {colour} colour|The colour|The shape|The pattern] is [{very} |][beautiful|gorgeous|lovely|stunning|pretty|a real eye-catcher]\n"
            "[Everyone|My {rel}] [compliments me on|admires|envies] [the design|the look|the colour]\n"
            "I love the [design|look|style|colour|{colour} colour|shape]"
        ),
        "negative": (
            "[It|The {prod}] looks [{very} |][ugly|cheap and ugly|hideous|old-fashioned|tasteless|boring|dull|nothing like the picture|tacky]\n"
            "[Ugly|Hideous|Tasteless|Tacky|Boring|Awful|Horrible] [design|look|colour|style|shape]\n"
            "[The {colour} colour|The colour|The shape|The pattern] is [{very} |][ugly|hideous|nothing like in the photo|dull|awful|completely different from the picture|horrible]\n"
            "[The logo|The print] [is far too big and ugly|ruins the look|spoils the design]\n"
            "I [hate|dislike|cannot stand] the [design|look|style|colour|{colour} colour|shape]"
        ),
        "neutral": (
            "[It|The {prod}] [is {colour}|comes in {colour}|comes in {n} colours|is {colour} with a {colour} stripe|looks like in the picture]\n"
            "The [design|look|style] is [plain|simple|average|the same as before|standard|as shown]\n"
            "[The colour|The shape] is [as in the picture|{colour}|round|square|as shown]\n"
            "There is a {colour} logo on the front"
        ),
        "question": "[Which|What] colours [are there|does it come in|can I choose]\n[Does it come|Is it available|Do you have it] in [{colour}|another colour|a different design]\nWhat does [it|the {prod}] look like from [behind|the side|above]\nIs the colour [more like {colour} or {colour}|as in the picture]",
        "suggestion": "[Please make|You should make|Please offer] [it in {colour}|more colours|a {colour} version|a modern design]\nIt would [be great|be nice] if [it came in {colour}|the logo was smaller|the design was more modern]",
    },
    "comfort": {
        "adj": "the comfort|the wearing comfort|the seating comfort|the padding|the cushioning",
        "positive": (
            "[It|The {prod}] is [{very} |][comfortable|comfy|cosy|soft and warm|pleasant to wear|pleasant to sit on|easy on the back]\n"
            "[So|Very|Extremely|Wonderfully|Incredibly] [comfortable|comfy|cosy|soft|snug]\n"
            "I can [wear it|sit in it|use it] [all day|for hours] without [any pain|getting tired|noticing it]\n"
            "[My feet|My back|My shoulders|My neck] [feel great|no longer hurt|feel so much better|thank me]\n"
            "[The cushion|The padding|The fabric|The lining] is [{very} |][soft|comfortable|comfy|pleasant on the skin]"
        ),
        "negative": (
            "[It|The {prod}] is [{very} |][uncomfortable|stiff and hard|scratchy|itchy|painful to wear|hard as a rock|unpleasant to wear]\n"
            "[So|Very|Extremely|Terribly|Painfully] [uncomfortable|itchy|scratchy|stiff]\n"
            "[My feet|My back|My shoulders|My neck|My ears] [hurt|ache|are sore|hurts] after [{n} minutes|half an hour|a short time|{n} hours]\n"
            "I [got blisters|got a rash|got back pain] {later}\n"
            "[The cushion|The padding|The fabric|The lining] is [{very} |][hard|scratchy|uncomfortable|rough on the skin|itchy]"
        ),
        "neutral": (
            "[It|The {prod}] is [as comfortable as my old one|neither comfortable nor uncomfortable|of average comfort]\n"
            "The [cushion|padding|lining] is [made of foam|removable|of medium firmness|{n} centimetres thick]\n"
            "The comfort is [average|okay|as expected|standard]\n"
            "You get used to [the seat|the padding|wearing it]"
        ),
        "question": "[Is it|Is the {prod}] comfortable [for long hours|to wear all day|to sit on|for tall people]\n[How soft|How firm|How thick] is the [padding|cushion|seat]\nDoes [it|the fabric] [itch|feel soft|feel scratchy]\nCan I [sit in it|wear it] all day without pain",
        "suggestion": "[Please add|You should add|Please use] [more padding|a softer cushion|a softer lining|thicker soles]\nIt would [be great|be nice|help] if [it was softer|the seat was softer|the padding was thicker]",
    },
    "sound": {
        "adj": "the sound|the sound quality|the audio|the audio quality|the bass|the volume",
        "positive": (
            "[The sound|The audio|It] [is crystal clear|is rich and full|fills the whole room|is clear and warm|sounds like a concert hall|is loud and clear]\n"
            "[Great|Excellent|Fantastic|Amazing|Superb|Brilliant] [sound|audio|bass|sound quality]\n"
            "[The bass|The treble] is [{very} |][deep|powerful|punchy|crisp|rich]\n"
            "[It|The {prod}] [sounds amazing|sounds wonderful|sounds great|is whisper-quiet|is pleasantly quiet|hardly makes a noise|is nice and quiet]\n"
            "[Music|Every song|Voices] [sounds|sound] [wonderful|fantastic|crystal clear|better than ever]\n"
            "The noise cancelling [is superb|works very well|blocks everything out perfectly]"
        ),
        "negative": (
            "[The sound|The audio|It] [is tinny|crackles all the time|is distorted|is muffled|cuts out constantly|is far too quiet|hisses and crackles]\n"
            "[Terrible|Awful|Tinny|Bad|Poor|Horrible|Muffled] [sound|audio|bass|sound quality]\n"
            "[The bass|The treble] is [weak|missing completely|distorted|nonexistent|awful|booming and muddy]\n"
            "[It|The {prod}] [sounds awful|sounds tinny|is {very} loud and noisy|makes an annoying noise|hums and buzzes all the time|is as loud as a jet engine|rattles loudly]\n"
            "[Music|Every song|Voices] [sounds|sound] [terrible|muffled|hollow|tinny|distorted]\n"
            "The noise cancelling [does not work|is useless|failed {later}]\n"
            "[The left speaker|One speaker|The microphone|One earbud] [crackles|died {later}|makes no sound]"
        ),
        "neutral": (
            "The [sound|audio|bass] is [average|okay|as expected|neither good nor bad|the same as before]\n"
            "[It|The {prod}] has [{n} speakers|one speaker|a volume of {pct} decibels|stereo sound]\n"
            "I [use it at medium volume|listen to the radio with it|set the volume to {n}]\n"
            "The volume goes from 0 to {big}"
        ),
        "question": "[How loud|How noisy] is [it|the {prod}]\n[How is|What about] the [bass|sound quality|audio quality]\n[Does it|Can it] play [stereo sound|music in stereo|louder]\nCan I [adjust|change] the [bass|volume|sound]\nDoes [it|the {prod}] make [much noise|a loud noise]",
        "suggestion": "[Please add|You should add] [more bass|an equalizer|a louder speaker|a volume knob|a mute button]\nIt would [be great|be nice|help] if [it was louder|it was quieter|the bass was stronger]",
    },
    "software": {
        "adj": "the software|the app|the firmware|the user interface|the menu|the software update",
        "positive": (
            "[The app|The software|The interface|The menu] is [{very} |][easy to use|intuitive|clear|well designed|stable|user-friendly|responsive|self-explanatory]\n"
            "[Great|Excellent|Intuitive|Fantastic|Very good|Brilliant] [app|software|user interface]\n"
            "[The latest update|The new update|The new version] [fixed everything|made it even better|added great features|runs smoothly]\n"
            "[The app|The software|Bluetooth|The Wi-Fi connection] [connects instantly|works flawlessly|never crashes|runs smoothly|works without any problems]\n"
            "[Setup|Pairing|Installation] was [{very} |][easy|quick|done in {n} minutes|child's play|a breeze]"
        ),
        "negative": (
            "[The app|The software|The interface|The menu] is [{very} |][buggy|confusing|slow|full of bugs|unstable|complicated|full of ads]\n"
            "[The app|The software] [crashes all the time|crashes every {n} minutes|freezes constantly|does not start|keeps crashing|deleted all my data|logs me out every day]\n"
            "[Terrible|Awful|Buggy|Useless|Horrible|Confusing] [app|software|user interface]\n"
            "[The latest update|The new update|The new version] [broke everything|made it worse|made it unusable|removed the best features|slowed it down]\n"
            "[Bluetooth|The Wi-Fi connection|The pairing|The login] [does not work|keeps dropping|fails every time|drops every {n} minutes]\n"
            "[Setup|Pairing|Installation] was [{very} |][complicated|a pain|frustrating|a nightmare]"
        ),
        "neutral": (
            "[The app|The software] [is available for Android|needs an account|has {n} menus|is updated every month|asks for a password]\n"
            "I [installed|downloaded] [the app|the update|the software|version {n}] on {day}\n"
            "The [app|software|menu] is [average|okay|in English|as expected|like the old version]\n"
            "[The firmware|The software] is at version {n}"
        ),
        "question": "[Does|Will] the [app|software] [work on Linux|run on my phone|need an account|work offline|support dark mode]\n[How do I|How can I] [install|update|reset|open] the [app|software|firmware]\nIs there an app for [Android|the iPhone|Windows|my tablet]\nWhen [is|will be] the next [update|software version]\nHow do I [connect it to Wi-Fi|pair it with Bluetooth]",
        "suggestion": "[Please add|You should add] [a dark mode|an app for Linux|an export button to the app|offline mode|more languages to the menu]\nIt would [be great|be nice|help] if the app [had a dark mode|worked offline|could export data|had a search]",
    },
    "packaging": {
        "adj": "the packaging|the box|the wrapping|the carton",
        "positive": (
            "[It|The {prod}|Everything] was [{very} |][well packed|carefully packed|securely packed|nicely wrapped|safely packaged|beautifully wrapped]\n"
            "[Great|Excellent|Beautiful|Lovely|Secure|Plastic-free] [packaging|wrapping|gift box]\n"
            "[The box|The packaging|The wrapping|The carton] is [{very} |][beautiful|sturdy|easy to open|recyclable, which I like|plastic-free, well done|pretty enough for a gift]\n"
            "[The box|The packaging] [protected it perfectly|kept everything safe|makes a lovely gift]"
        ),
        "negative": (
            "[It|The {prod}|Everything] was [badly packed|poorly packed|packed without any padding|loose in the box|wrapped in far too much plastic]\n"
            "[Terrible|Awful|Poor|Wasteful|Flimsy|Bad] [packaging|wrapping|box]\n"
            "[The box|The packaging|The wrapping|The carton] was [crushed|torn|damaged|soaking wet|already open|ripped open|dented|dirty|impossible to open]\n"
            "[So much|Far too much|Way too much] [plastic wrapping|plastic packaging|packaging waste]\n"
            "[The box|The carton] [was missing half of the parts|fell apart in my hands|was held together with tape]"
        ),
        "neutral": (
            "[It|The {prod}|Everything] [comes in a cardboard box|was in a {colour} box|came in a plain box|is packed in paper]\n"
            "[The box|The packaging|The carton] [is {colour}|is made of cardboard|contains {n} parts|has a label on it|measures {big} cm]\n"
            "The [packaging|box|wrapping] is [average|okay|standard|plain|as expected|the usual one]"
        ),
        "question": "[Can you|Is it possible to] [gift wrap it|wrap it as a gift|pack it in paper]\nIs [the box|the packaging|the wrapping] [recyclable|plastic-free|made of paper|resealable]\nWhat is [in the box|inside the box|included in the box]\nHow [do I open|can I open] the [box|packaging]",
        "suggestion": "[Please use|You should use] [less plastic for the packaging|paper instead of plastic wrap|a stronger box|a smaller box]\nIt would [be great|be nice|help] if the [box|packaging] was [smaller|made of paper|easier to open|resealable]",
    },
    "taste": {
        "adj": "the taste|the flavour|the aroma|the aftertaste|the taste of the {prod}|the flavor",
        "positive": (
            "[It|The {prod}] [tastes|is] [{very} |][delicious|tasty|yummy|scrumptious|fresh and delicious]\n"
            "[Delicious|Tasty|Yummy|Heavenly|Mouth-watering]\n"
            "[The flavour|The aroma|The taste] is [{very} |][rich|fresh|well balanced|delicious|divine|intense and pleasant]\n"
            "[It|The {prod}] tastes [like homemade|like my grandmother used to make|great|wonderful|better than any other|fresh and fruity]\n"
            "My {rel} [loves the taste|loves the flavour|ate it all at once and wanted more|asks for more]"
        ),
        "negative": (
            "[It|The {prod}] [tastes|is] [{very} |][disgusting|bland|stale|bitter and nasty|inedible|rancid|tasteless|revolting]\n"
            "[Disgusting|Inedible|Bland|Stale|Revolting|Tasteless]\n"
            "[The flavour|The aroma|The taste] is [{very} |][artificial|chemical|bland|nasty|disgusting|stale|unpleasant]\n"
            "[It|The {prod}] tastes [like cardboard|like soap|like plastic|of nothing|burnt|awful|far too salty|far too sweet|sour and spoiled]\n"
            "[It|The {prod}] [was mouldy|was past its date|had gone off|made me sick|upset my stomach]\n"
            "My {rel} [spat it out|hated the taste|could not eat it]"
        ),
        "neutral": (
            "[It|The {prod}] tastes [of vanilla|of lemon|like other brands|average|okay|as expected|slightly sweet|of {prod}]\n"
            "[The flavour|The taste] is [mild|average|okay|standard|as expected|neither good nor bad|of medium strength]\n"
            "[It|The {prod}] contains [{n} percent sugar|nuts|no milk|lemon juice|{big} calories]\n"
            "I had it for [breakfast|lunch|dinner]"
        ),
        "question": "[Does it|Does the {prod}] [contain nuts|contain sugar|taste sweet|taste of vanilla]\n[How sweet|How spicy|How strong] is [it|the {prod}|the flavour]\n[Is it|Is the {prod}] [vegan|gluten-free|spicy|organic|salted]\nWhich [flavours|tastes] [are there|do you have]\nWhat does [it|the {prod}] taste like",
        "suggestion": "[Please add|You should add|Please make] [a vanilla flavour|less sugar|a sugar-free version|a chocolate flavour|more spice]\nIt would [be great|be nice] if [it was less sweet|there was a lemon flavour|it tasted stronger]",
    },
}

FIRST_NAMES = (
    "Anna Ben Clara David Emma Felix Grace Henry Ida Jack Karen Liam Maria Noah Olivia Paul Quinn Rosa Samuel Tina Umar "
    "Vera Walter Xenia Yusuf Zoe Alice Bruno Carol Daniel Elena Frank Gina Hugo Irene James Kate Lucas Mia Nina Oscar "
    "Petra Robert Sofia Thomas Ursula Victor Wendy Peter Laura Michael Sarah John Julia Mark Linda Ahmed Fatima Hiroshi "
    "Yuki Ivan Olga Pedro Lucia Chen Mei Raj Priya Omar Leila Sven Astrid Pierre Camille Marco Giulia Jan Eva Ali Amir"
).split()

LAST_NAMES = (
    "Smith Jones Brown Miller Davis Wilson Taylor Clark Hall Young King Wright Hill Scott Green Adams Baker Nelson Carter "
    "Mitchell Turner Parker Collins Cook Bell Murphy Bailey Cooper Reed Kelly Ward Gray Watson Brooks Bennett Wood Price "
    "Barnes Ross Fisher Meyer Schmidt Weber Fischer Novak Kowalski Rossi Garcia Lopez Silva Santos Martin Dubois Jensen "
    "Hansen Larsen Lindberg Virtanen Ivanov Tanaka Sato Kim Park Lee Wang Patel Singh Khan Hassan Okafor Mensah"
).split()

CITIES = (
    "London|Paris|Berlin|Madrid|Rome|Vienna|Lisbon|Dublin|Oslo|Stockholm|Helsinki|Copenhagen|Warsaw|Prague|Budapest|"
    "Athens|Brussels|Amsterdam|Zurich|Geneva|Munich|Hamburg|Cologne|Frankfurt|Leipzig|Dresden|Lyon|Marseille|Nice|Milan|"
    "Turin|Naples|Venice|Florence|Barcelona|Valencia|Seville|Porto|Leeds|Bristol|Glasgow|Edinburgh|Manchester|Liverpool|"
    "Oxford|Cambridge|York|Bath|Cardiff|Belfast|Cork|Boston|Chicago|Dallas|Denver|Seattle|Portland|Austin|Houston|Phoenix|"
    "Atlanta|Miami|Detroit|Toronto|Montreal|Vancouver|Ottawa|Calgary|Sydney|Melbourne|Perth|Brisbane|Auckland|Wellington|"
    "Tokyo|Osaka|Kyoto|Seoul|Busan|Beijing|Shanghai|Hong Kong|Singapore|Bangkok|Manila|Jakarta|Delhi|Mumbai|Chennai|"
    "Dubai|Cairo|Lagos|Nairobi|Accra|Cape Town|Casablanca|Tunis|Istanbul|Ankara|Tel Aviv|New York|Los Angeles|"
    "San Francisco|San Diego|Las Vegas|New Orleans|Mexico City|Bogota|Lima|Santiago|Buenos Aires|Sao Paulo|"
    "Rio de Janeiro|Kansas City|Salt Lake City|Ghent|Antwerp|Utrecht|Rotterdam|Basel|Graz|Salzburg|Bergen|Malmo|"
    "Gothenburg|Turku|Tallinn|Riga|Vilnius|Krakow|Gdansk|Brno|Zagreb|Belgrade|Sofia|Bucharest|Bern|Lille|Bordeaux"
).split("|")

BRANDS = (
    "Norvik Aeromax Lumina Bravo Kestrel Solara Vento Orbis Tarn Zephyr Pico Halden Mirano Cobalt Fjord Astra Delmont "
    "Quanta Brewster Sonora Velora Nimbus Arctis Polaris Terra Ember Ridge Falcon Primus Vega Delta Nova Echo"
).split()

MATERIALS = "wooden leather cotton steel glass ceramic bamboo plastic silk wool portable folding wireless electric mini".split()
