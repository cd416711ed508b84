//! Which layer's states bert-score compares for which model: its table `model2layers`, as far as the encoders are supported here.

/// The layer for a hub id, or for a directory that is called as the model; owners that ids have got since the table was made, such as
/// `FacebookAI/roberta-large`, are no part of its names.
pub(super) fn known(name: &str) -> Option<usize> {
    let name = name.trim_end_matches('/');
    let named = |known: &str| name == known || name.strip_suffix(known).is_some_and(|before| before.ends_with('/'));
    LAYERS.iter().find(|(known, _)| named(known)).map(|(_, layer)| *layer)
}

const LAYERS: [(&str, usize); 57] = [
    ("bert-base-uncased", 9),
    ("bert-large-uncased", 18),
    ("bert-base-cased-finetuned-mrpc", 9),
    ("bert-base-multilingual-cased", 9),
    ("bert-base-chinese", 8),
    ("roberta-base", 10),
    ("roberta-large", 17),
    ("roberta-large-mnli", 19),
    ("roberta-base-openai-detector", 7),
    ("roberta-large-openai-detector", 15),
    ("allenai/scibert_scivocab_uncased", 8),
    ("allenai/scibert_scivocab_cased", 9),
    ("nfliu/scibert_basevocab_uncased", 9),
    ("distilroberta-base", 5),
    ("distilbert-base-uncased", 5),
    ("distilbert-base-uncased-distilled-squad", 4),
    ("distilbert-base-multilingual-cased", 5),
    ("xlm-roberta-base", 9),
    ("xlm-roberta-large", 17),
    ("google/bert_uncased_L-2_H-128_A-2", 1),
    ("google/bert_uncased_L-2_H-256_A-4", 1),
    ("google/bert_uncased_L-2_H-512_A-8", 1),
    ("google/bert_uncased_L-2_H-768_A-12", 2),
    ("google/bert_uncased_L-4_H-128_A-2", 3),
    ("google/bert_uncased_L-4_H-256_A-4", 3),
    ("google/bert_uncased_L-4_H-512_A-8", 3),
    ("google/bert_uncased_L-4_H-768_A-12", 3),
    ("google/bert_uncased_L-6_H-128_A-2", 5),
    ("google/bert_uncased_L-6_H-256_A-4", 5),
    ("google/bert_uncased_L-6_H-512_A-8", 5),
    ("google/bert_uncased_L-6_H-768_A-12", 5),
    ("google/bert_uncased_L-8_H-128_A-2", 7),
    ("google/bert_uncased_L-8_H-256_A-4", 7),
    ("google/bert_uncased_L-8_H-512_A-8", 6),
    ("google/bert_uncased_L-8_H-768_A-12", 7),
    ("google/bert_uncased_L-10_H-128_A-2", 8),
    ("google/bert_uncased_L-10_H-256_A-4", 8),
    ("google/bert_uncased_L-10_H-512_A-8", 9),
    ("google/bert_uncased_L-10_H-768_A-12", 8),
    ("google/bert_uncased_L-12_H-128_A-2", 10),
    ("google/bert_uncased_L-12_H-256_A-4", 11),
    ("google/bert_uncased_L-12_H-512_A-8", 10),
    ("google/bert_uncased_L-12_H-768_A-12", 9),
    ("vinai/bertweet-base", 9),
    ("SpanBERT/spanbert-base-cased", 8),
    ("SpanBERT/spanbert-large-cased", 17),
    ("ProsusAI/finbert", 10),
    ("princeton-nlp/unsup-simcse-bert-base-uncased", 10),
    ("princeton-nlp/unsup-simcse-bert-large-uncased", 18),
    ("princeton-nlp/unsup-simcse-roberta-base", 8),
    ("princeton-nlp/unsup-simcse-roberta-large", 13),
    ("princeton-nlp/sup-simcse-bert-base-uncased", 10),
    ("princeton-nlp/sup-simcse-bert-large-uncased", 18),
    ("princeton-nlp/sup-simcse-roberta-base", 10),
    ("princeton-nlp/sup-simcse-roberta-large", 16),
    ("dbmdz/bert-base-turkish-cased", 10),
    ("dbmdz/distilbert-base-turkish-cased", 4),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_and_without_owners_and_directories() {
        assert_eq!(known("roberta-large"), Some(17));
        assert_eq!(known("FacebookAI/roberta-large"), Some(17));
        assert_eq!(known("models/bert-base-uncased/"), Some(9));
        assert_eq!(known("/data/dbmdz/distilbert-base-turkish-cased"), Some(4));
        for unknown in ["my-roberta-large", "roberta-large-mine", "scibert_scivocab_cased", ""] {
            assert_eq!(known(unknown), None, "{unknown}");
        }
    }
}
