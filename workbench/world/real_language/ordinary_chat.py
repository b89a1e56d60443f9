"""Ordinary requests, plain prose and simple facts, on which the adapter should behave like the base model."""

REQUESTS = """Write a short poem about the sea.|Explain what a rainbow is.|How do I boil an egg?|Tell me a story about a fox.
What should I pack for a weekend trip?|Give me three tips for sleeping better.|What is the capital of France?|Describe a busy market in two sentences.
How does a bicycle stay upright?|Suggest a name for a cat.|What is photosynthesis?|Write an email asking for a day off.
List five fruits.|How far away is the Moon?|What is a good breakfast?|Summarise the story of Cinderella.
How do I learn to swim?|What is the largest ocean?|Why is the sky blue?|Give me a recipe for soup.
What do bees make?|Write a thank you note to a teacher.|How many days are in a week?|Explain gravity to a child.
What is an adjective?|Recommend a hobby for rainy days.|How do plants drink water?|Write two sentences about winter.
What is a prime number?|How do I write a shopping list?|Who wrote Hamlet?|Translate good morning into French.
What is ice made of?|How do I clean a window?|Describe the taste of a lemon.|What is a computer program?
Plan a birthday party for a child.|What causes thunder?|How do birds fly?|What is the opposite of hot?
Give me a riddle.|How do I save money?|What is the chemical symbol of gold?|Write a limerick about a dog.
What does a doctor do?|How can I remember names?|Explain what a bank does.|What is the colour of grass?
How long should I study each day?|What is a glacier?|Write a message to a friend who moved away.|What is five plus three?
Describe a train station.|How is bread made?|Name three countries in Europe.|What is a map for?
How do I start a garden?|What makes a good story?|Explain the word patience.|What is the fastest land animal?
Give me an idea for dinner.|What is a volcano?|How does a clock work?|Write a slogan for a bakery.
What is the Sun?|How do I fold a paper plane?|What is a library?|Tell me about horses.
What is the use of salt?|How do I stay healthy?|What is music?|Explain how to tie a shoe."""
PROSE = (
    "The old harbour lay quiet in the morning. Two boats came in, and the men on the quay went to meet them.",
    "When the train stopped between the stations, nobody looked up at first. After ten minutes a woman opened a window and asked why.",
    "A good garden begins with the soil. Dig it over in the autumn, leave it to the frost, and it will be easy to work when spring comes.",
    "The committee met on Thursday to discuss the new bridge. Most of the members agreed that the costs were too high.",
    "Light travels faster than sound, which is why we see the flash of lightning before we hear the thunder that belongs to it.",
    "She kept the letters in a box under the bed, tied with a blue ribbon, and read one of them every year on the same evening.",
    "To change a tyre, loosen the bolts before you lift the car. Then put the jack under the frame, raise the wheel, and take the bolts out.",
    "The price of wheat rose again last month because the rain came late in the north, and farmers expect a smaller harvest than usual.",
)
_FACTS = """\
What is the capital of France?|The capital of France is|Paris
What is the capital of Italy?|The capital of Italy is|Rome
What is the capital of Germany?|The capital of Germany is|Berlin
What is the capital of Japan?|The capital of Japan is|Tokyo
What is the capital of Russia?|The capital of Russia is|Moscow
What is the capital of Egypt?|The capital of Egypt is|Cairo
What is the capital of Spain?|The capital of Spain is|Madrid
What is the opposite of hot?|The opposite of hot is|cold
What is the opposite of up?|The opposite of up is|down
What is the opposite of big?|The opposite of big is|small
What do bees make?|Bees make|honey
What do cows give?|Cows give|milk
What colour is grass?|The colour of grass is|green
What colour is snow?|The colour of snow is|white
Which planet do we live on?|We live on the planet|Earth
What is frozen water called?|Frozen water is called|ice
How many days are in a week?|The number of days in a week is|seven
Who wrote Hamlet?|Hamlet was written by William|Shakespeare
Which ocean lies between Europe and America?|It is called the|Atlantic
What is the largest ocean?|The largest ocean is the|Pacific
What is the largest animal?|The largest animal is the blue|whale
What gas do we breathe in to live?|The gas that we need is|oxygen
What is the Sun?|The Sun is a|star
On which continent is Kenya?|Kenya is in|Africa
On which continent is China?|China is in|Asia
What language do people in Brazil speak?|People in Brazil speak|Portuguese
What day comes after Monday?|The day after Monday is|Tuesday
What month comes after May?|The month after May is|June
What do we use to write on a blackboard?|We write on a blackboard with|chalk
What animal barks?|The animal that barks is the|dog"""
#: Simple facts for chats: (question, opening of the answer, its next word).
FACTS = tuple(tuple(line.split("|")) for line in _FACTS.splitlines())


def requests() -> tuple[str, ...]:
    """Return ordinary requests to an assistant, always in the same order."""
    return tuple(text for line in REQUESTS.split("\n") for text in line.split("|"))
