"""A small library with questions whose answers are known: each stands in one document alone.

The questions say things in other words than the documents do, so that words alone do not find them all.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Text:
    """A document: its name without an ending, its kind, its paragraphs, and its attributes."""

    name: str
    kind: str
    paragraphs: tuple[str, ...]
    department: str
    year: int


@dataclass(frozen=True)
class Question:
    """A question and the name of the document that answers it."""

    text: str
    answered_by: str


KINDS = ("txt", "md", "html", "pdf", "docx", "pptx", "xlsx", "csv", "json", "py")

_ABOUT = (
    ("glacier-survey", "science", 2021, (
        "The northern glacier lost eleven metres of thickness between two surveys.",
        "Measurements were taken with ground-penetrating radar pulled by a snow vehicle.",
        "Melt water now gathers in a lake behind the terminal moraine.",
    ), "How much thinner has the ice in the north become?"),
    ("sourdough", "kitchen", 2022, (
        "A sourdough starter is fed with equal weights of rye flour and water every evening.",
        "The loaf proves for fourteen hours in a cool cellar before baking.",
        "The crust is crisp when the oven is filled with steam for the first quarter of an hour.",
    ), "What should I give the bread culture each night?"),
    ("bicycle-brakes", "workshop", 2020, (
        "Disc brakes squeal when their pads have been touched by oil.",
        "Contaminated pads are sanded lightly, or replaced if that does not help.",
        "Rotors are cleaned with isopropyl alcohol and a cloth without fluff.",
    ), "Why does my bike make a shrill noise when I stop?"),
    ("vacation-policy", "people", 2024, (
        "Employees receive twenty-eight days of paid leave in a calendar year.",
        "Up to five unused days can be carried over until the end of March.",
        "Requests are approved by the team lead within three working days.",
    ), "How many holidays does a worker get annually?"),
    ("night-train", "travel", 2023, (
        "The sleeper from Vienna to Rome departs at a quarter past seven in the evening.",
        "Compartments have four berths; a private one costs an extra forty euros.",
        "Breakfast with coffee is served half an hour before arrival.",
    ), "When does the overnight rail service to the Italian capital leave?"),
    ("bees", "science", 2022, (
        "Honeybees tell each other the direction of flowers by a waggle dance.",
        "The angle to the vertical stands for the angle to the sun.",
        "The duration of the waggle grows with the distance to the food.",
    ), "How do insects of a hive communicate where nectar can be found?"),
    ("backup-plan", "it", 2024, (
        "Databases are copied to a second site every six hours.",
        "Restoring the whole inventory system takes about ninety minutes.",
        "Copies are kept for thirty-five days and are then destroyed.",
    ), "How long are the safety copies of our data retained?"),
    ("violin", "music", 2019, (
        "The bridge of a violin carries the vibration of the strings to the top plate.",
        "A sound post inside joins the two plates and shapes the tone.",
        "Rosin makes the bow hair grip the string.",
    ), "Which substance lets the horsehair catch on the strings?"),
    ("volcano", "science", 2020, (
        "Basaltic lava flows easily because it contains little silica.",
        "Rhyolite is so thick that gases burst out of it in explosions.",
        "Tiltmeters show that the ground swells before an eruption.",
    ), "Why are some molten rocks runny?"),
    ("coffee-machine", "kitchen", 2023, (
        "Descale the espresso machine after two hundred cups with citric acid.",
        "The grinder is set finer if the shot runs in under twenty seconds.",
        "The water tank holds two litres.",
    ), "After how many drinks must lime be removed from the brewer?"),
    ("elevator", "building", 2021, (
        "In case of fire the lift returns to the ground floor and opens its doors.",
        "The emergency call is answered by a guard within thirty seconds.",
        "The cabin carries at most eight persons or six hundred and thirty kilograms.",
    ), "What does the elevator do when there is a blaze?"),
    ("solar-panels", "building", 2024, (
        "The panels on the roof produce forty-two megawatt hours in a year.",
        "Snow slides off because they are mounted at an angle of thirty degrees.",
        "Surplus electricity charges the cars in the garage.",
    ), "What happens with power from the sun that the house does not need?"),
    ("chess-opening", "games", 2018, (
        "In the Sicilian Defence Black answers the king's pawn with the c-pawn.",
        "The Dragon variation places the bishop on the long diagonal.",
        "White often castles to the queen's side and attacks with pawns.",
    ), "Which reply to e4 moves the pawn on the c-file?"),
    ("tea", "kitchen", 2021, (
        "Green tea turns bitter if the water is hotter than eighty degrees.",
        "Oolong leaves can be infused five times.",
        "Matcha is whisked with a bamboo brush.",
    ), "What spoils the taste of sencha?"),
    ("expenses", "people", 2023, (
        "Receipts over twenty-five euros must be photographed and sent to accounting.",
        "Flights under four hours are booked in economy class.",
        "Reimbursements arrive with the salary of the following month.",
    ), "When will I get back money that I paid on a business trip?"),
    ("owl", "science", 2023, (
        "An owl's feathers have soft fringes that muffle the sound of its flight.",
        "Its ears sit at different heights, which tells it how high a mouse is.",
        "It can turn its head by two hundred and seventy degrees.",
    ), "Why can this bird of prey approach without being heard?"),
    ("password-rules", "it", 2022, (
        "Passphrases need at least four random words.",
        "A security key is required for administrators.",
        "Accounts are locked for ten minutes after eight wrong attempts.",
    ), "What do privileged users need in addition in order to log in?"),
    ("marathon", "sport", 2020, (
        "Runners should eat pasta the evening before, not in the morning.",
        "The longest practice run is thirty-two kilometres, three weeks before the race.",
        "Drink a little at every station instead of much at one.",
    ), "What is the greatest distance to train before the big race?"),
    ("lighthouse", "travel", 2019, (
        "The lighthouse keeper climbed one hundred and ninety-nine steps each night.",
        "Its lens was made in Paris and floats on mercury.",
        "Since automation it can be rented by guests in summer.",
    ), "Where was the optical glass of the beacon manufactured?"),
    ("compost", "garden", 2022, (
        "A compost heap needs two parts of dry leaves to one part of kitchen scraps.",
        "It should feel like a squeezed sponge.",
        "Turning it once a month lets air in and keeps it from smelling.",
    ), "How can I prevent rotting garden waste from stinking?"),
    ("roses", "garden", 2023, (
        "Prune roses when the forsythia blooms.",
        "Cut above a bud that points outwards.",
        "Black spot is a fungus; fallen leaves should be burnt.",
    ), "What is the right moment to cut back the thorny shrubs?"),
    ("satellite", "science", 2024, (
        "The weather satellite stands above the equator at an altitude of thirty-six thousand kilometres.",
        "It sends a picture of the full disc every ten minutes.",
        "Its fuel will last until the year 2039.",
    ), "How often is a photograph of the whole Earth transmitted?"),
    ("contract-law", "legal", 2021, (
        "An offer lapses if it is not accepted within fourteen days.",
        "Changes to the agreement are valid only in writing.",
        "Disputes are settled by the court in Hamburg.",
    ), "Which city's judges decide if the parties disagree?"),
    ("swimming-pool", "sport", 2022, (
        "The pool is closed for cleaning on the first Tuesday of each month.",
        "Children under seven swim only with an adult.",
        "The water is kept at twenty-seven degrees.",
    ), "On which day can nobody bathe because of maintenance?"),
    ("dialects", "language", 2020, (
        "In the southern valleys people say 'grumbeere' for potato.",
        "Vowels are longer in the mountains than on the plain.",
        "The old plural survives in the names of villages.",
    ), "What is the regional word for the tuber used in fries?"),
    ("printer", "it", 2021, (
        "If the paper jams, open the rear flap and pull the sheet downwards.",
        "Toner is reordered when less than fifteen per cent is left.",
        "Confidential pages wait until a code is entered at the device.",
    ), "How do I get a secret document out of the shared printing machine?"),
    ("whales", "science", 2019, (
        "Sperm whales dive to two thousand metres and hold their breath for an hour.",
        "They find squid in the dark by clicks.",
        "Families stay together for decades, led by grandmothers.",
    ), "For how much time can these sea mammals go without air?"),
    ("first-aid", "people", 2020, (
        "The defibrillator hangs beside the reception desk.",
        "Burns are cooled with lukewarm water for ten minutes.",
        "Call the emergency number one one two first.",
    ), "Where is the device that restarts a heart?"),
    ("piano-tuning", "music", 2024, (
        "A piano should be tuned twice a year, after the seasons change.",
        "Dry air makes the soundboard shrink and the pitch fall.",
        "A humidifier in winter keeps the felt of the hammers elastic.",
    ), "How frequently does the grand need adjustment of its pitch?"),
    ("shipping", "logistics", 2023, (
        "Parcels leave the warehouse at four in the afternoon.",
        "Goods over thirty kilograms travel by freight carrier.",
        "Returned items are checked within two days and refunded.",
    ), "At what hour do packages go out?"),
)  # fmt: skip

LIBRARY = tuple(
    Text(name, KINDS[number % len(KINDS)], paragraphs, department, year)
    for number, (name, department, year, paragraphs, _) in enumerate(_ABOUT)
)
QUESTIONS = tuple(Question(asked, name) for name, _, _, _, asked in _ABOUT)
