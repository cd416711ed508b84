//! Porter's stemmer ("An algorithm for suffix stripping", 1980) with the extensions of NLTK 3.9.1, its `PorterStemmer()`.
//! Snowball's English stemmer is another one.

/// The stem of a word in lower case.
pub fn stem(word: &str) -> String {
    if let Some((stem, _)) = IRREGULAR.iter().find(|(_, words)| words.contains(&word)) {
        return (*stem).into();
    }
    let mut stem = Stem(word.chars().collect());
    if stem.0.len() > 2 {
        stem.plurals();
        stem.past_and_progressive();
        stem.last_y();
        stem.double_suffixes();
        stem.first(&ADJECTIVES, 0);
        stem.first(&NOUNS, 1);
        stem.last_e();
        stem.last_l();
    }
    stem.0.into_iter().collect()
}

const IRREGULAR: [(&str, &[&str]); 12] = [
    ("sky", &["sky", "skies"]),
    ("die", &["dying"]),
    ("lie", &["lying"]),
    ("tie", &["tying"]),
    ("news", &["news"]),
    ("inning", &["innings", "inning"]),
    ("outing", &["outings", "outing"]),
    ("canning", &["cannings", "canning"]),
    ("howe", &["howe"]),
    ("proceed", &["proceed"]),
    ("exceed", &["exceed"]),
    ("succeed", &["succeed"]),
];

/// Suffixes and what stands for them (step 2); `alli`, which is treated before, is here for stems that are too short.
const DOUBLE: [(&str, &str); 21] = [
    ("ational", "ate"),
    ("tional", "tion"),
    ("enci", "ence"),
    ("anci", "ance"),
    ("izer", "ize"),
    ("bli", "ble"),
    ("alli", "al"),
    ("entli", "ent"),
    ("eli", "e"),
    ("ousli", "ous"),
    ("ization", "ize"),
    ("ation", "ate"),
    ("ator", "ate"),
    ("alism", "al"),
    ("iveness", "ive"),
    ("fulness", "ful"),
    ("ousness", "ous"),
    ("aliti", "al"),
    ("iviti", "ive"),
    ("biliti", "ble"),
    ("fulli", "ful"),
];

/// Step 3.
const ADJECTIVES: [(&str, &str); 7] =
    [("icate", "ic"), ("ative", ""), ("alize", "al"), ("iciti", "ic"), ("ical", "ic"), ("ful", ""), ("ness", "")];

/// Step 4.
const NOUNS: [(&str, &str); 19] = [
    ("al", ""),
    ("ance", ""),
    ("ence", ""),
    ("er", ""),
    ("ic", ""),
    ("able", ""),
    ("ible", ""),
    ("ant", ""),
    ("ement", ""),
    ("ment", ""),
    ("ent", ""),
    ("ion", ""),
    ("ou", ""),
    ("ism", ""),
    ("ate", ""),
    ("iti", ""),
    ("ous", ""),
    ("ive", ""),
    ("ize", ""),
];

/// Which characters are consonants: all but vowels and a `y` behind a consonant.
fn consonants(word: &[char]) -> impl Iterator<Item = bool> {
    word.iter().scan(false, |before, c| {
        *before = match c {
            'a' | 'e' | 'i' | 'o' | 'u' => false,
            'y' => !*before,
            _ => true,
        };
        Some(*before)
    })
}

fn is_consonant(word: &[char], at: usize) -> bool {
    consonants(&word[..=at]).last() == Some(true)
}

/// Porter's m: how often a consonant follows a vowel.
fn measure(word: &[char]) -> usize {
    let mut before = true;
    consonants(word).filter(|&now| !std::mem::replace(&mut before, now) && now).count()
}

fn has_vowel(word: &[char]) -> bool {
    consonants(word).any(|consonant| !consonant)
}

/// Porter's *o: consonant, vowel and a consonant but `w`, `x` and `y`. To NLTK, a vowel and a consonant alone are so too.
fn is_short(word: &[char]) -> bool {
    let mut last = [None; 3];
    for consonant in consonants(word) {
        last = [last[1], last[2], Some(consonant)];
    }
    match last {
        [None, vowel, consonant] => vowel == Some(false) && consonant == Some(true),
        _ => last == [Some(true), Some(false), Some(true)] && !matches!(word.last(), Some('w' | 'x' | 'y')),
    }
}

struct Stem(Vec<char>);

impl Stem {
    /// What is before a suffix.
    fn before(&self, suffix: &str) -> Option<&[char]> {
        let at = self.0.len().checked_sub(suffix.len())?;
        self.0[at..].iter().copied().eq(suffix.chars()).then(|| &self.0[..at])
    }

    fn replace(&mut self, suffix: &str, by: &str) {
        self.0.truncate(self.0.len() - suffix.len());
        self.0.extend(by.chars());
    }

    /// Replaces the first of these suffixes that the word has, if what is before it measures more than `more`.
    fn first(&mut self, rules: &[(&str, &str)], more: usize) {
        let found = rules.iter().find_map(|&(suffix, by)| Some((suffix, by, self.before(suffix)?)));
        let Some((suffix, by, before)) = found else { return };
        if measure(before) > more && (suffix != "ion" || matches!(before.last(), Some('s' | 't'))) {
            self.replace(suffix, by);
        }
    }

    /// Step 1a.
    fn plurals(&mut self) {
        match () {
            () if self.before("ies").is_some() => self.replace(if self.0.len() == 4 { "s" } else { "es" }, ""),
            () if self.before("sses").is_some() => self.replace("es", ""),
            () if self.before("ss").is_none() && self.before("s").is_some() => self.replace("s", ""),
            () => (),
        }
    }

    /// Step 1b.
    fn past_and_progressive(&mut self) {
        if self.before("ied").is_some() {
            return self.replace(if self.0.len() == 4 { "d" } else { "ed" }, "");
        }
        if let Some(before) = self.before("eed") {
            if measure(before) > 0 {
                self.replace("d", "");
            }
            return;
        }
        let Some(suffix) = ["ed", "ing"].into_iter().find(|suffix| self.before(suffix).is_some_and(has_vowel)) else {
            return;
        };
        self.replace(suffix, "");
        let doubled = match self.0[..] {
            [.., a, b] => a == b && is_consonant(&self.0, self.0.len() - 1),
            _ => false,
        };
        if ["at", "bl", "iz"].iter().any(|end| self.before(end).is_some()) {
            self.0.push('e');
        } else if doubled {
            if !matches!(self.0.last(), Some('l' | 's' | 'z')) {
                self.0.pop();
            }
        } else if measure(&self.0) == 1 && is_short(&self.0) {
            self.0.push('e');
        }
    }

    /// Step 1c: only behind a consonant that is not the first letter.
    fn last_y(&mut self) {
        if self.before("y").is_some_and(|before| before.len() > 1 && is_consonant(before, before.len() - 1)) {
            self.replace("y", "i");
        }
    }

    /// Step 2.
    fn double_suffixes(&mut self) {
        if self.before("alli").is_some_and(|before| measure(before) > 0) {
            self.replace("li", "");
            return self.double_suffixes();
        }
        // The `l` of `logi` is the stem's.
        match self.before("logi").is_some() {
            true if measure(&self.0[..self.0.len() - 3]) > 0 => self.replace("i", ""),
            true => (),
            false => self.first(&DOUBLE, 0),
        }
    }

    /// Step 5a.
    fn last_e(&mut self) {
        let drop = |before: &[char]| match measure(before) {
            0 => false,
            1 => !is_short(before),
            _ => true,
        };
        if self.before("e").is_some_and(drop) {
            self.0.pop();
        }
    }

    /// Step 5b.
    fn last_l(&mut self) {
        if self.before("ll").is_some() && measure(&self.0[..self.0.len() - 1]) > 1 {
            self.0.pop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::stem;

    #[test]
    fn examples_of_the_paper_and_of_the_extensions() {
        let paper = "caresses caress ponies poni cats cat agreed agre plastered plaster bled bled motoring motor sing sing \
            conflated conflat sized size hopping hop falling fall hissing hiss filing file relational relat conditional condit \
            triplicate triplic formalize formal electrical electr goodness good revival reviv adjustment adjust adoption adopt \
            probate probat rate rate cease ceas controlling control rolling roll";
        let extensions = "dies die flies fli died die spied spi spy spi enjoy enjoy happy happi skies sky news news \
            geology geolog hopefully hope is is ed ed";
        let words: Vec<&str> = paper.split(' ').chain(extensions.split(' ')).filter(|word| !word.is_empty()).collect();
        for pair in words.chunks_exact(2) {
            assert_eq!(stem(pair[0]), pair[1], "of {}", pair[0]);
        }
        assert_eq!(stem(&"y".repeat(100_000)).len(), 100_000);
        assert_eq!((stem("straßen").as_str(), stem("ééing").as_str(), stem("").as_str()), ("straßen", "ééing", ""));
    }

    #[test]
    fn stems_equal_nltk() {
        let golden = crate::evaluate::metric::golden();
        let words = golden["stems"].as_object().expect("words");
        assert!(words.len() > 1000);
        for (word, wanted) in words {
            assert_eq!(stem(word).as_str(), wanted, "of {word}");
        }
    }
}
