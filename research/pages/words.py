"""Something to print: sentences of made-up and everyday words in several scripts."""

from __future__ import annotations

from research.rng import Rng

__all__ = ["PROBES", "SCRIPT_WEIGHTS", "Writer"]

# Characters a face must draw before a script is set in it.
PROBES = {
    "latin": "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,-()",
    "accented": "äöüßéèàçñÄÖÜ",
    "cyrillic": "абвгдежзийклмнопрстуфхцчшщыьэюяАБВ",
    "greek": "αβγδεζηθικλμνξοπρστυφχψωΑΒΓ",
    "hebrew": "אבגדהוזחטיכלמנסעפצקרשת",
    "arabic": "ابتجدرسعفقكلمنهوي",
    "devanagari": "अआकखगचजटडतदनपबमयरलवसह",
    "cjk": "日本語中文字大小人山川水火木金土年月上下会社電車",
}
SCRIPT_WEIGHTS = {
    "latin": 60.0,
    "accented": 18.0,
    "cyrillic": 6.0,
    "greek": 4.0,
    "cjk": 5.0,
    "hebrew": 2.0,
    "arabic": 2.5,
    "devanagari": 2.5,
}
_WORDS = {
    "latin": (
        "the of and a to in is that for it was on with as at by this be are from or have an not "
        "which one were all their there been has when who will more no if out so said what up its "
        "about into than them can only other new some could time these two may then first any "
        "like now my such over our even most made after also did many before must through years "
        "where much way well down should because each just those people how too little state good "
        "very make world still see own work long here between both life being under never day "
        "image value function region average result method table figure section window threshold"
    ),
    "accented": (
        "für über größe müssen können straße wäre schön später während nächste gemäß élève été "
        "être déjà très après où même français façon garçon niño año señor mañana cañón más según "
        "también está él así número über die der und nicht das les des une dans pour que con los "
        "las una por está à côté naïve zurück möglich Höhe Länge Fläche"
    ),
    "cyrillic": (
        "и в не на что он быть это как весь она так его но год который мы из у же вы за бы по от "
        "для время человек рука дело жизнь первый день очень большой новый работа слово место "
        "лицо друг дом вопрос страна мир школа книга письмо"
    ),
    "greek": (
        "και το να είναι για με που δεν από στο θα τα τον της ένα αυτό αλλά όπως μετά χρόνος "
        "λόγος άνθρωπος κόσμος ημέρα ζωή έργο μέρος τρόπος πόλη βιβλίο γράμμα"
    ),
    "hebrew": "של את על לא זה הוא עם כל היא אני גם או יש כי אם מה בית ספר יום שנה עיר מים אור דרך",
    "arabic": (
        "في من على إلى هذا كان التي عن مع هو ما كل بعد يوم كتاب بيت مدينة ماء نور طريق سنة باب"
    ),
    "devanagari": (
        "और के है में की से का को पर यह एक हम वह जो दिन घर नाम काम समय जल लोग देश भाषा शब्द पुस्तक"
    ),
}
_ONSETS = "b br c ch cl d dr f fl g gr h j k l m n p pl pr qu r s sc sh sp st str t th tr v w z"
_NUCLEI = "a e i o u a e i o ai ea ee io ou y"
_CODAS = "- - l m n nd ng nt r rd rs s st t ck ll"


class Writer:
    """Writes words, sentences and numbers in one script."""

    def __init__(self, rng: Rng, script: str) -> None:
        self.script = script
        self._rng = rng
        self._words = _WORDS.get(script, "").split()
        self._syllable = (
            _ONSETS.split(),
            _NUCLEI.split(),
            _CODAS.replace("-", "").split(" "),
        )

    def word(self) -> str:
        """One word: from the script's list or, in Latin letters, often a made-up one."""
        rng = self._rng
        if self.script == "cjk":
            return "".join(rng.pick(PROBES["cjk"]) for _ in range(rng.whole(1, 6)))
        if self.script == "latin" and rng.chance(0.55):
            syllables = rng.weighted({1: 3, 2: 5, 3: 3, 4: 1})
            return "".join(rng.pick(part) for _ in range(syllables) for part in self._syllable)
        return rng.pick(self._words)

    def number(self) -> str:
        """A figure as it stands in tables: counts, prices, dates, percentages."""
        rng = self._rng
        return rng.pick(
            (
                f"{rng.whole(0, 99)}",
                f"{rng.whole(0, 9999):,}",
                f"{rng.between(0, 1000):.2f}",
                f"{rng.between(0, 1):.3f}",
                f"{rng.whole(1, 28)}.{rng.whole(1, 12):02d}.{rng.whole(1900, 2030)}",
                f"{rng.whole(1, 100)}%",
                f"-{rng.between(0, 90):.1f}",
            )
        )

    def sentence(self) -> list[str]:
        """The words of one sentence, capital first, with punctuation and the odd number."""
        rng = self._rng
        words = [
            self.number() if rng.chance(0.04) else self.word() for _ in range(rng.whole(4, 18))
        ]
        for index in range(len(words) - 1):
            if rng.chance(0.09):
                words[index] += rng.pick(",,,;:")
            elif rng.chance(0.02):
                words[index] = f"({words[index]})"
            elif rng.chance(0.04):
                words[index] = words[index].capitalize()
        words[0] = words[0].capitalize()
        words[-1] += rng.pick("....?!:")
        return words

    def words(self, count: int) -> list[str]:
        """At least ``count`` words of running text."""
        found: list[str] = []
        while len(found) < count:
            found += self.sentence()
        return found

    def title(self, longest: int = 6) -> str:
        """A short heading."""
        rng = self._rng
        words = [self.word() for _ in range(rng.whole(1, longest))]
        style = rng.weighted({"sentence": 5, "title": 3, "upper": 2})
        if style == "upper":
            return " ".join(words).upper()
        if style == "title":
            return " ".join(word.capitalize() for word in words)
        return " ".join(words).capitalize()

    def name(self) -> str:
        """One to three capitalised words, as a signature or a form entry has them."""
        return " ".join(self.word().capitalize() for _ in range(self._rng.whole(1, 3)))
