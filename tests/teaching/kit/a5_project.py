"""Assignment 5: recipes that lose points, what each still earns, and a part of what they are told."""

HEAD = "def recipe():\n    return "

# function, its code, {item: points it still earns; the items not named earn all}, part of the reason
WRONG = [
    (
        "recipe",
        HEAD + "{'statistics': 'batch', 'views': 8}",
        {"recipe_budget": 0, "recipe_gain": 0},
        "16.0 passes an image",
    ),
    ("recipe", HEAD + "{'statistics': 'source'}", {"recipe_gain": 0}, "nothing is gained"),
    ("recipe", HEAD + "{'statistic': 'batch'}", {"recipe_budget": 0, "recipe_gain": 0}, "no entry 'statistic'"),
    ("recipe", HEAD + "{'statistics': 'blend', 'value': 7}", {"recipe_budget": 0, "recipe_gain": 0}, "cannot be built"),
    (
        "recipe",
        HEAD + "{'steps': 10**9, 'losses': {'rank': 1}}",
        {"recipe_budget": 0, "recipe_gain": 0},
        "from 1 to 10",
    ),
    (
        "recipe",
        HEAD + "{'statistics': 'shrink', 'views': 2}",
        {"recipe_budget": 0, "recipe_gain": 0},
        "shrink needs a 'value'",
    ),
    ("recipe", HEAD + "['batch']", {"recipe_budget": 0, "recipe_gain": 0}, "is a dictionary"),
]
