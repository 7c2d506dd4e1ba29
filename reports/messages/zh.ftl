# 供人阅读的全部文字（简体中文）。键和参数与 en.ftl 完全相同，由测试比较。

## The page
page-title = 在 { $host } 上，隔离的代价是多少
page-lead = 同一份负载放进 { $sandboxes } 种隔离方式，在这台机器上并排测量，并据此检验人们关于容器与虚拟机的常见说法。
page-contents = 目录
page-emulated = 整台机器是模拟出来的。其中的数字只能彼此比较，不能与真实硬件比较。
page-footer = 由 { $program } 仅根据 run.json 和 samples.jsonl 生成：相同的记录得到逐字节相同的页面。
fact-started = 开始时间
fact-samples = 样本
fact-samples-value = 采用 { $used }，预热 { $warm-ups }，错误 { $errors }

## Sections
section-verdicts = 哪些说法在此成立
section-machine = 机器与方法
section-charts = 图表与数据
section-modes = 何时选用哪种网络模式
section-unavailable = 在此无法测量的项目
section-errors = 失败的测量
section-untested = 未检验的说法

## Verdicts
verdicts-lead = 每一条都是取自课程讲义的假设，判定规则在取得数据之前就已确定。只有整个 95 % 区间都超出界限才算有差异，只有整个区间都在界限之内才算相等，其余一律为无法定论。
verdicts-none = 这些记录不足以回答任何一条说法。
answer-confirmed = 成立
answer-refuted = 不成立
answer-inconclusive = 无法定论
answer-not-measurable = 在此无法测量
answer-not-tested = 未检验
answer-shown-by-construction = 由实现方式决定
answer-split = 部分成立
kind-choice = 运行时的选择
kind-choice-text = 由运行时自行选择的行为。只有其他运行时才能证实；仅凭我们自己的运行时，只能说由实现方式决定。
kind-consequence = 机制的必然结果
kind-consequence-text = 由内核机制决定。以探测及其对照来判定。
kind-figure = 数值
kind-figure-text = 以测量来判定，界限事先确定。
verdict-rule = 规则：{ $rule }
verdict-count = { $answer }：{ $count }
figure-name = 数值
figure-estimate = 估计值
figure-interval = 区间
figure-n = n

## Machine and method
machine-host = 主机
machine-cpu = 处理器
machine-cpus = { $cpu }，{ $count } 个在线
machine-memory = 内存
machine-kernel = 内核
machine-cgroups = 控制组
machine-kvm = KVM
machine-privilege = 运行身份
machine-root = root
machine-rootless = 普通用户（用户命名空间内）
machine-program = 程序
machine-command = 命令行
machine-plan = 计划
machine-plan-value = 套件 { $suite }，随机种子 { $seed }，区组：{ $blocks }
machine-own-program = 被测程序
method-title = 如何测量
method-network = 模拟的宿主机、它的网桥和外部客户端都位于本次运行自己的网络命名空间中。没有物理网卡参与，也没有触碰机器自身的链路和防火墙。
method-blocks = 每个随机区组中每种沙箱各测一次，使机器的漂移对所有沙箱影响相同。一个区组中的一次启动是重复的单位。
method-interval = 图中给出全部样本，以及中位数和由区组重抽样得到的 95 % 区间；少于六个区组时不给出区间。
method-ready = 有网络时，以第一个 TCP 应答为就绪；否则以标准输出上的一行为就绪。计时始于创建进程之前的一刻。
method-closed = 延迟测试为闭环：每次只有一个请求，收到应答后再发下一个。
method-kept = 预热样本予以保留并标记，失败绝不记为零，也不剔除任何离群值。
sandboxes-title = 沙箱
sandbox-name = 沙箱
sandbox-family = 类别
sandbox-version = 版本
sandbox-emulation = 模拟方式
family-process = 进程
family-container = 我们的容器
family-unikernel = 我们的微型虚拟机（unikernel 客户机）
family-linux = 我们的微型虚拟机（Linux 客户机）
family-peer = 其他项目的程序
unavailable-lead = 以下项目原在计划之内，因程序查明的原因而未测。
unavailable-reason = 原因
errors-lead = 以错误告终的样本，不计入任何数字。
errors-count = 错误数
errors-metric = 指标
errors-first = 第一个错误
untested-lead = 本次运行没有与之相关的实验。

## Sandboxes in a sentence
sandbox-process = 裸进程
sandbox-unikernel-process = 作为进程运行的 unikernel 代码
sandbox-container-host = host 模式
sandbox-container-container = container 模式
sandbox-container-none = none 模式
sandbox-container-bridge = bridge 模式
sandbox-container-custom = 自定义网络
sandbox-vm-unikernel = unikernel 虚拟机
sandbox-vm-linux = Linux 虚拟机

## Charts
chart-data = 数据表
chart-stages-key = 阶段：
chart-key-median = 中位数与 95 % 区间
chart-key-hatched = 斜线或虚线：模拟
chart-alone-startup = { $first }经 { $time } 就绪
chart-alone-memory = { $first }的每个实例占用 { $slope }
chart-alone-throughput = { $first }的{ $direction }速率为 { $rate }
chart-alone-latency = 到{ $first }的一次往返需要 { $time }
chart-startup-title = { $first }经 { $first-time } 就绪，是{ $second }（{ $second-time }）的 { $ratio } 倍
chart-startup-same = 就绪用时：未见{ $first }与{ $second }有差异（{ $first-time } 对 { $second-time }）
chart-memory-title = 每个实例占用的内存：{ $first } { $first-slope }，{ $second } { $second-slope }
chart-throughput-title = { $direction }速率：{ $first }是{ $second }的 { $ratio } 倍（{ $first-rate } 对 { $second-rate }）
chart-throughput-same = { $direction }速率：未见{ $first }与{ $second }有差异（{ $first-rate } 对 { $second-rate }）
chart-latency-title-more = 与{ $second }（{ $second-time }）相比，{ $first }使一次往返增加 { $difference }
chart-latency-title-less = 与{ $second }（{ $second-time }）相比，{ $first }使一次往返减少 { $difference }
chart-latency-same = 往返时间：未见{ $first }与{ $second }有差异（{ $first-time } 对 { $second-time }）
chart-startup-axis = 自创建进程起的时间
chart-startup-section = 从 t0 到就绪，按阶段
chart-memory-axis-x = 空闲实例数
chart-memory-axis-y = 比无实例时多用的宿主机内存
chart-memory-section = 宿主机内存随空闲实例数的变化
chart-memory-each = 每个 { $slope }
chart-throughput-axis = TCP 吞吐量，单流
chart-throughput-section = TCP 吞吐量，{ $path }
chart-latency-axis = 往返时间，对数刻度
chart-latency-section = 闭环 TCP 往返，{ $path }
chart-latency-note = unikernel 和虚拟机的监控程序在没有数据包时，会先用 50 µs 一直查看有没有下一个，之后才空出 CPU。往返时间因此更小，代价是 CPU 一直被占用；进程和容器则不占用。
chart-group-upload = 上行（流向沙箱）
chart-group-download = 下行
chart-segmentation-offload = 分段卸载
chart-segmentation-wire = 线路大小的数据包
path-host = 从模拟的宿主机
path-client = 从外部客户端
path-loopback = 经回环接口
stage-created = 创建进程
stage-vmm-entered = 启动 VMM
stage-vmm-ready = 搭建虚拟机
stage-guest-entered = 进入客户机
stage-agent-entered = 启动代理
stage-listening = 监听
stage-announced = 报告就绪
stage-answered = 首个应答
column-sandbox = 沙箱
column-stages = 各阶段（中位数）
column-median = 中位数
column-interval = 95 % 区间
column-lowest = 最小
column-highest = 最大
column-n = n
column-slope = 每个实例
column-at-instances = { $count } 个时
column-direction = 方向
column-segmentation = 分段方式
column-percentile = { $percent } %
column-requests = 请求数
value-interval = { $low } 至 { $high }

## Network modes
modes-lead = 五种模式各在何时选用，以及在此测得的数字。
mode-host-title = host
mode-host-when = 适合端口少而固定、需要宿主机全部网络性能的服务，以及必须看到宿主机自身网络的工具。代价是所有容器共用一个端口空间和同一个回环接口，流量无法分别计量或过滤。
mode-container-title = container
mode-container-when = 适合通信频繁且本属一体的一对：服务与它的代理、程序与它的指标采集器。它们共享地址、端口和回环接口，并与网络的拥有者同生共死。
mode-none-title = none
mode-none-when = 适合不需要、也不应有网络的批处理任务，也可作为手工接线的空白起点。
mode-bridge-title = bridge
mode-bridge-when = 单机上的默认选择：有自己的地址，出站经源地址转换，入站只能经已发布的端口。代价是每个数据包都要经过网桥和一次地址转换。
mode-custom-title = custom
mode-custom-when = 适合在一台主机上把多个应用分开：每个网络有自己的子网和网关，成员可按名称互相找到，不同网络互不相通。
mode-figures = 在此测得
mode-figures-none = 本次运行没有与之相关的数字。
mode-ready = 就绪用时
mode-upload-host = 从宿主机上行
mode-upload-client = 从外部上行
mode-round-trip-host = 从宿主机往返
mode-round-trip-client = 从外部往返
mode-memory = 每多一个所占内存
mode-upload-loopback = 经回环接口上行
mode-loopback = 经回环接口往返

## Terminal
table-sandbox = 沙箱
table-ready = 就绪
table-memory = 每个内存
table-upload = 上行
table-round-trip = 往返
table-unavailable = 在此无法测量：{ $reason }
table-legend = 均为中位数；上行与往返自模拟的宿主机测得，启用分段卸载。

## Markdown
markdown-claim = 说法
markdown-answer = 结论

## Short words for a chart's key
key-process = 进程
key-container = 容器
key-unikernel = unikernel
key-linux = Linux 虚拟机
key-peer = 其他程序
chart-beyond = 另有 { $count } 个在外，最大 { $highest }

## Rules
rule-facts = 每一项在所有区组中都观察到，并且对照的结果符合预期。
rule-ratio = 在区组内成对比较；所列各项的整个区间都必须位于界限的指定一侧。
rule-threshold = 每一项的整个区间都必须位于界限的指定一侧。
rule-not-tested = 尚无规则。
figure-expected = 该说法认为
figure-seen = 观察到
figure-answer = 结论
figure-compared = { $sandbox } / { $against }
figure-medians = { $first } 对 { $second }
figure-probe = 探测
figure-is-control = 对照
figure-blocks = n（区组）
expect-worse = 差 { $percent } % 以上
expect-better = 好 { $percent } % 以上
expect-equal = 相等（{ $percent } % 以内）
expect-below = 低于 { $limit }
expect-at-least = 不低于 { $limit }
expected-contains = 包含 { $text }
expected-excludes = 均不含 { $text }
expected-within = 位于 { $text } 之内
expected-same-as = 等同于：{ $metric }
expected-differs-from = 不同于：{ $metric }
value-yes = 是
value-no = 否
value-nothing = 无
verdict-emulation = 模拟：{ $emulation }
interval-level = { $level } %：{ $interval }

## Reasons
reason-no-experiment = 尚无与之对应的实验。
reason-not-in-run = 本次运行不包括 { $name }。
reason-unavailable = { $sandbox } 无法在此运行：{ $why }。
reason-emulated = { $sandbox } 在此是模拟的（{ $emulation }），其数字不能作为依据。
reason-control-broken = { $sandbox } 的对照“{ $metric }”结果不符合预期，因此该探测不可信。
reason-no-samples = 没有 { $sandbox } 的“{ $metric }”可用样本。
reason-too-few-blocks = 只有 { $blocks } 个完整区组，不足以给出区间：需要 { $needed } 个。
reason-contradictory = 各区组关于 { $sandbox } 的“{ $metric }”互相矛盾。
reason-undecided = 有区间跨越了界限。
reason-own-runtime-only = 我们自己的运行时本就如此编写；没有其他运行时参与，无从判定。

## Metrics
metric-start-stages = 启动的各阶段
metric-start-ready = 就绪用时
metric-start-gone = 消失用时
metric-memory-host = 宿主机内存
metric-memory-pss = 按比例分摊的驻留内存
metric-memory-cgroup = 控制组的内存
metric-memory-vmm-overhead = VMM 在客户机内存之外的开销
metric-tcp-upload = 上行
metric-tcp-download = 下行
metric-tcp-round-trip = 往返
metric-tcp-round-trip-median = 往返中位数
metric-tcp-connection = 建立连接
metric-tcp-connection-median = 建立连接的中位数
metric-network-interfaces = 网络接口
metric-network-addresses = 地址
metric-network-routes = 路由
metric-network-host-interfaces = 宿主机的网络接口
metric-network-host-addresses = 宿主机的地址
metric-network-namespace-is-host = 网络命名空间即宿主机的
metric-network-connects = 可以连接
metric-network-port-conflict = 端口已被占用
metric-network-source-address = 外部看到的源地址
metric-network-default-mode = 未指定时的模式
metric-network-range = 子网
metric-network-publish = 已发布的端口可达
metric-cell-duration = 单元用时
metric-machine-steal = 被虚拟机监控器占去的处理器时间
metric-cell-leak = 单元结束后的残留
target-outside = 到外部
target-gateway = 到网关

## Lists
list-comma = ，
markdown-id = 编号
markdown-details = 数字
markdown-figure = { $name }（{ $subject }）：{ $estimate }（{ $interval }，n = { $n }）
chart-scale = 刻度至 { $highest }
