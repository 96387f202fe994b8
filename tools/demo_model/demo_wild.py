"""
demo_wild.py
    Prompts written by hand, not by the generator: a check of how the demo
    model does on text of other people.

Each entry: the messages' contents (a system prompt or None, the user's
message), the right answer.

tools/demo_model/demo_wild.py
"""

SENTIMENT_SYSTEM = "Label the sentiment of the review. Answer with one word: positive, negative or neutral."
TOPIC_SYSTEM = (
    "What is the topic of this review? Answer with one of: delivery, price, quality, service, size, battery, design, "
    "comfort, sound, software, packaging, taste."
)

SENTIMENT = [
    ("I love these headphones, the sound is great!", "positive"),
    ("The zipper broke after two days. Very disappointed.", "negative"),
    ("Arrived on Tuesday. It is a black chair.", "neutral"),
    ("Best purchase of the year, I would buy it again.", "positive"),
    ("Awful. Never ordering from this shop again.", "negative"),
    ("The blender works perfectly and is very quiet.", "positive"),
    ("The customer service was rude and nobody called me back.", "negative"),
    ("It costs 20 dollars and comes in three colours.", "neutral"),
    ("My daughter loves her new teddy bear.", "positive"),
    ("The phone stopped charging after a week, I want my money back.", "negative"),
    ("Great value for money, highly recommended.", "positive"),
    ("The soup tastes like cardboard.", "negative"),
    ("Delivery took three weeks and the box was crushed.", "negative"),
    ("Super comfortable shoes, I can walk all day in them.", "positive"),
    ("The app crashes every time I open it.", "negative"),
    ("Beautiful lamp, it looks stunning in our living room.", "positive"),
    ("This is a normal kettle, nothing special.", "neutral"),
    ("Far too expensive for what you get.", "negative"),
    ("The jacket fits perfectly and the material feels sturdy.", "positive"),
    ("I am not happy with this laptop.", "negative"),
    ("Not bad at all!", "positive"),
    ("The camera is okay, about average.", "neutral"),
    ("Fast delivery, friendly staff, everything perfect.", "positive"),
    ("Waste of money, it was broken when I got it.", "negative"),
]

TOPIC = [
    ("The parcel came two weeks late.", "delivery"),
    ("Much too expensive, I can get it cheaper elsewhere.", "price"),
    ("The handle fell off after three days, cheap plastic.", "quality"),
    ("The lady at the hotline was very friendly and helped me at once.", "service"),
    ("The trousers are too long and too tight.", "size"),
    ("It only lasts two hours, then I have to charge it again.", "battery"),
    ("I love the elegant look and the blue colour.", "design"),
    ("My back hurts after an hour in this chair.", "comfort"),
    ("The bass is deep and the music sounds crystal clear.", "sound"),
    ("The latest update made the app unusable.", "software"),
    ("The box was torn and wet.", "packaging"),
    ("These cookies are delicious, my kids want more.", "taste"),
    ("The courier left the package in the rain.", "delivery"),
    ("A real bargain at 15 euros.", "price"),
    ("The seams came apart after the first wash.", "quality"),
    ("Nobody answers my emails.", "service"),
    ("The shoes run small, order one size up.", "size"),
    ("The battery of my phone is empty by noon.", "battery"),
    ("It looks ugly in our kitchen.", "design"),
    ("Very soft and cosy, I could sleep in it.", "comfort"),
    ("The speakers crackle at high volume.", "sound"),
    ("The menu is confusing and the software is full of bugs.", "software"),
    ("It was wrapped in far too much plastic.", "packaging"),
    ("The coffee tastes bitter and stale.", "taste"),
]

EXTRACT = [
    ("Extract product, rating and city as JSON: I bought the Norvik kettle in Leeds and give it 4 stars.",
     '{"product": "Norvik kettle", "rating": 4, "city": "Leeds"}'),
    ("Extract the fields name, order_number and date as JSON.\n\nMy name is Carla Jimenez. My order 7741902 from 2024-03-12 has not arrived.",
     '{"name": "Carla Jimenez", "order_number": "7741902", "date": "2024-03-12"}'),
    ('Return JSON with the keys "product", "price" and "city".\n\nI ordered a blue toaster for $29.90. Greetings from Toronto!',
     '{"product": "blue toaster", "price": 29.90, "city": "Toronto"}'),
    ("Extract order_number and email as JSON.\n\nWhere is my order A-55310? You can reach me at j.doe@example.com.",
     '{"order_number": "A-55310", "email": "j.doe@example.com"}'),
    ("Extract product, quantity and city as JSON. Please ship 12 units of office chair to Rotterdam.",
     '{"product": "office chair", "quantity": 12, "city": "Rotterdam"}'),
    ("Extract name, city and rating as JSON.\n\nHi, I am Tom from Oxford. The lamp stopped working after a week, so I give it 1 star.",
     '{"name": "Tom", "city": "Oxford", "rating": 1}'),
    ("Extract product and date as JSON: The Aeromax 300 vacuum cleaner arrived on 5 May 2023.",
     '{"product": "Aeromax 300 vacuum cleaner", "date": "5 May 2023"}'),
    ("Extract product, rating, city as JSON: The coffee maker is great, 5 stars.",
     '{"product": "coffee maker", "rating": 5, "city": null}'),
    ("Get the product, the price and the date as JSON. On March 3, 2025 I bought a garden chair for 45 euros.",
     '{"product": "garden chair", "price": 45, "date": "March 3, 2025"}'),
    ("Extract name, product and price as JSON.\n\nMaria Rossi ordered a leather belt for 39.95 euros.",
     '{"name": "Maria Rossi", "product": "leather belt", "price": 39.95}'),
]

CHAT = [
    ("Hello!", "Hello! How can I help you?"),
    ("Who are you?", "I am the llm_ext demo model, a small language model that runs inside PostgreSQL."),
    ("What can you do?", None),
    ("Thanks a lot!", "You are welcome!"),
    ("What is PostgreSQL?", None),
    ("Tell me a joke", None),
    ("What is a transaction?", None),
    ("what's an index in postgres?", None),
    ("Are you a human being?", None),
    ("What is the capital of Australia?", "decline"),
    ("Write a python function that reverses a string", "decline"),
    ("My name is Bartholomew.", "Nice to meet you, Bartholomew!"),
]


def messages(system, user):
    return ([{"role": "system", "content": system}] if system else []) + [{"role": "user", "content": user}]


def cases():
    """By task: (messages, right answer)."""
    return {
        "sentiment": [(messages(SENTIMENT_SYSTEM, text), label) for text, label in SENTIMENT],
        "topic": [(messages(TOPIC_SYSTEM, text), label) for text, label in TOPIC],
        "extract": [(messages(None, text), answer) for text, answer in EXTRACT],
    }
