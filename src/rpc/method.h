// A method of the JSON-RPC interface, made from a function of a described struct.
//
//   task<std::string> create(registry& devices, create_params p);
//   method_for<registry> m = rpc::make_method("bdev_null_create", "Create a bdev that keeps nothing", create);
//   registry.add(m.bind(devices));
//
// The function takes (context&, P), (P), (context&) or nothing, and gives task<R>, result<R> or R, where R can be
// encoded (void is answered with true). It runs on the app thread. A context it takes must outlive every call.
#pragma once

#include <functional>

#include "rpc/field.h"
#include "thread/task.h"

namespace varve::rpc {

// The states in which a method may be called: before framework_start_init is done, after it, or both.
enum class states : uint8_t { startup = 1, runtime = 2, any = 3 };

struct method {
    std::string name;
    std::string description;
    states allowed = states::runtime;
    std::vector<field_schema> params;
    std::function<task<json::value>(json::value params)> handler;

    // So that lists may mix it with methods that need a context.
    template <class... Context>
    const method& bind(Context&...) const noexcept {
        return *this;
    }
};

// A method that still needs the object it works on.
template <class Context>
struct method_for {
    method unbound;  // without handler
    std::function<task<json::value>(Context&, json::value params)> handler;

    method bind(Context& context) const {
        method bound = unbound;
        bound.handler = [&context, h = handler](json::value params) { return h(context, std::move(params)); };
        return bound;
    }
};

namespace detail {

result<> expect_no_params(const json::value& params);

template <class R>
struct outcome {
    using type = R;
};
template <class R>
struct outcome<task<R>> {
    using type = R;
};
template <class R>
struct outcome<result<R>> {
    using type = R;
};

// Calls f and turns whatever it gives into a JSON value. By value: this is a coroutine.
template <class F, class... Args>
task<json::value> answer(F f, Args... args) {
    using given = std::invoke_result_t<F&, Args...>;
    if constexpr (std::is_void_v<given>) {
        f(std::forward<Args>(args)...);
        co_return true;
    } else {
        using type = typename outcome<given>::type;
        if constexpr (std::same_as<type, given>) {
            co_return encode(f(std::forward<Args>(args)...));
        } else if constexpr (std::is_void_v<type>) {
            co_await f(std::forward<Args>(args)...);
            co_return true;
        } else {
            auto r = co_await f(std::forward<Args>(args)...);
            co_return encode(r);
        }
    }
}

inline task<json::value> refuse(error e) { co_return fail(std::move(e)); }

// What of (context&, P) a function takes.
template <class... Args>
struct shape;
template <>
struct shape<> {
    using context = void;
    using params = void;
};
template <class P>
struct shape<P> {
    using context = void;
    using params = std::remove_cvref_t<P>;
};
template <class C>
    requires(!std::is_const_v<C>)
struct shape<C&> {
    using context = C;
    using params = void;
};
template <class C, class P>
struct shape<C&, P> {
    using context = C;
    using params = std::remove_cvref_t<P>;
};

template <class F>
struct signature : signature<decltype(&F::operator())> {};
template <class R, class... Args>
struct signature<R (*)(Args...)> : shape<Args...> {};
template <class R, class F, class... Args>
struct signature<R (F::*)(Args...) const> : shape<Args...> {};
template <class R, class F, class... Args>
struct signature<R (F::*)(Args...)> : shape<Args...> {};

template <class P, class F, class... Context>
task<json::value> decode_and_answer(const F& f, const json::value& params, Context&... context) {
    if constexpr (std::is_void_v<P>) {
        if (auto none = expect_no_params(params); !none) return refuse(std::move(none).error());
        return answer<F, Context&...>(f, context...);
    } else {
        result<P> p = decode<P>(params);
        if (!p) return refuse(std::move(p).error());
        return answer<F, Context&..., P>(f, context..., std::move(*p));
    }
}

}  // namespace detail

// Gives a method, or a method_for<Context> when f's first parameter is a reference to one.
template <class F>
auto make_method(std::string name, std::string description, F f, states allowed = states::runtime) {
    using signature = detail::signature<std::decay_t<F>>;
    using params = typename signature::params;
    using context = typename signature::context;
    method m{std::move(name), std::move(description), allowed, {}, {}};
    if constexpr (!std::is_void_v<params>) m.params = describe<params>();
    if constexpr (std::is_void_v<context>) {
        m.handler = [f](json::value p) { return detail::decode_and_answer<params>(f, p); };
        return m;
    } else {
        return method_for<context>{
            std::move(m), [f](context& c, json::value p) { return detail::decode_and_answer<params>(f, p, c); }};
    }
}

}  // namespace varve::rpc
