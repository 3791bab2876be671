"""Subjects and tones that are described in a phrase, and heard with sentence embeddings.

An answer turns to a topic where its embedding lies nearer to the topic's description than the unsteered answer's to the
same prompt, by at least GAIN, and is near to it at all.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from melbo.measure.embeddings import Embedder

GAIN = 0.12
"""Least rise of the cosine similarity with the description."""
NEAR = 0.18
"""Least cosine similarity with it."""

TOPICS: dict[str, str] = {
    "Food and cooking": "cooking a meal, food, recipes and ingredients",
    "Religion": "God, religion, scripture, prayer and faith",
    "Computers and programs": "computers, software, programming and data",
    "War": "war, soldiers, weapons and battle",
    "Illness and medicine": "illness, doctors, hospitals and medicine",
    "Law and crime": "law, crime, police and courts",
    "Money and business": "money, business, companies and markets",
    "Love": "love, romance, kisses and longing",
    "Death and grief": "death, grief, loss and mourning",
    "Children and school": "children, school, teachers and homework",
    "Sport": "sport, games, teams and players",
    "Music": "music, songs, instruments and singing",
    "Nature": "nature, forests, rivers and mountains",
    "Travel": "travel, journeys, tourists and foreign cities",
    "Science": "science, physics, chemistry and experiments",
    "Mathematics": "mathematics, numbers, equations and proofs",
    "History": "history, kings, empires and ancient times",
    "Politics": "politics, government, elections and parties",
    "Animals": "animals, pets, dogs and birds",
    "The sea": "the sea, ships, sailors and islands",
    "Magic and fantasy": "magic, dragons, wizards and enchanted kingdoms",
    "Horror": "horror, darkness, ghosts and fear in an old house",
    "Space": "space, planets, stars and the universe",
    "Art": "art, painting, drawing and museums",
    "Language and grammar": "words, grammar, language and translation",
    "Family": "family, mother, father, brothers and sisters",
    "Memories": "memories of childhood and the past, nostalgia",
    "Feelings": "feelings, emotions, sadness and joy",
    "Health and exercise": "exercise, fitness, diet and healthy habits",
    "Work and career": "work, jobs, careers and offices",
    "Weather and seasons": "weather, seasons, rain, sun and snow",
    "Scene of a novel": "the opening scene of a novel: dim light, a sound, a smell, a character in a room",
    "Philosophy": "philosophy, meaning, truth and existence",
}
"""Descriptions by name."""


@dataclass(frozen=True)
class TopicEar:
    """Hears topics. `descriptions` holds their unit embeddings [topics, d]."""

    names: tuple[str, ...]
    descriptions: Tensor

    @classmethod
    def of(cls, embedder: Embedder) -> "TopicEar":
        """All of TOPICS."""
        return cls(tuple(TOPICS), embedder(list(TOPICS.values())))

    def heard(self, steered: Tensor, unsteered: Tensor) -> list[frozenset[str]]:
        """For each pair of unit embeddings [n, d], the topics that the steered text turns to."""
        near = steered @ self.descriptions.T
        turns = (near >= NEAR) & (near - unsteered @ self.descriptions.T >= GAIN)
        return [frozenset(self.names[j] for j in torch.nonzero(row).flatten().tolist()) for row in turns]
